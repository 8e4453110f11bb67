//! Addresses of servers as people write them. Pure: nothing is looked up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use url::{Host, Url};

/// Bytes of an address at most.
const MAX_ADDRESS: usize = 2048;
/// Bytes of a socket's path that every system takes.
const MAX_SOCKET_PATH: usize = 100;

/// What is wrong with something that was typed or configured: the thing, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, without the backend's name.
    pub what: String,
    /// What to do.
    pub next: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), next: next.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.next)
    }
}

impl std::error::Error for Wrong {}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `http://host:port` or `https://host:port`.
    Http(HttpAddress),
    /// `unix:///path/to.sock`.
    Unix(PathBuf),
    /// `ssh://[user@]host[:port]`: an engine of ours there.
    Ssh(SshHost),
}

/// A server that speaks HTTP over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// Without a slash at the end and without `/v1`.
    pub base: String,
    /// A name or an address, without brackets.
    pub host: String,
    /// Its port, where none was written the scheme's.
    pub port: u16,
    /// Whether it is `https`.
    pub is_tls: bool,
}

impl Address {
    /// Whether it is this machine, by the look of it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match self {
            Self::Http(address) => address.is_here(),
            Self::Unix(_) => true,
            Self::Ssh(_) => false,
        }
    }
}

impl HttpAddress {
    /// The IP address, where the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it is this machine, by the look of it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }
}

/// A host as `ssh` takes it: a name of the person's `~/.ssh/config` will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SshHost {
    /// Who to be there; none: what `ssh` is configured to.
    pub user: Option<String>,
    /// The host.
    pub host: String,
    /// The port; none: what `ssh` is configured to.
    pub port: Option<u16>,
}

impl fmt::Display for SshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl FromStr for SshHost {
    type Err = Wrong;

    /// Reads `[user@]host[:port]`, also with `ssh://` before it.
    fn from_str(text: &str) -> Result<Self, Wrong> {
        let bad = |why: &str| Wrong::new(format!("{why}: `{}`", short(text)), "write it as user@host:port");
        let rest = text.strip_prefix("ssh://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            // The text is not repeated: it holds a password.
            return Err(Wrong::new(
                "a password does not belong in an address",
                "let `ssh` use a key or an agent",
            ));
        }
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or("?"))),
            // Several colons without brackets: an IPv6 address.
            None if place.matches(':').count() > 1 => (place, None),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return Err(bad("there is no such port")),
        };
        // What begins with a dash would be an option of `ssh`.
        let is_word = |text: &str, more: &str| {
            !text.is_empty()
                && text.len() <= 255
                && !text.starts_with('-')
                && text.chars().all(|c| c.is_alphanumeric() || more.contains(c))
        };
        if !is_word(host, ".-_+:%") {
            return Err(bad("that is no host"));
        }
        if user.is_some_and(|user| !is_word(user, ".-_+\\")) {
            return Err(bad("that is no user"));
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port })
    }
}

impl FromStr for Address {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let write = "write http://host:port, https://host:port, ssh://host or unix:///path";
        let bad = |why: &str| Wrong::new(format!("{why}: `{}`", short(text)), write);
        if text.len() > MAX_ADDRESS {
            return Err(bad("the address is too long"));
        }
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(bad("an address has no spaces"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let is_host = !text.is_empty() && !text.contains('/') && !text.contains('@');
            let next = if is_host { format!("write http://{}", short(text)) } else { write.to_owned() };
            return Err(Wrong::new(format!("the address has no scheme: `{}`", short(text)), next));
        };
        match scheme {
            "http" | "https" => http(text).map(Self::Http),
            "unix" if !rest.starts_with('/') => Err(bad("the path does not begin with /")),
            "unix" if rest.len() > MAX_SOCKET_PATH => Err(bad("the path of the socket is too long")),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "ssh" => Ok(Self::Ssh(text.parse()?)),
            "duet" => Err(Wrong::new(
                "that is a line for pairing, not an address",
                "give it to `tui backends pair`",
            )),
            _ => Err(bad("the address does not begin with http://, https://, ssh:// or unix://")),
        }
    }
}

fn http(text: &str) -> Result<HttpAddress, Wrong> {
    let bad = |why: &str| Wrong::new(format!("{why}: `{}`", short(text)), "write http://host:port");
    let url = match Url::parse(text) {
        Ok(url) => url,
        // It may hold a password.
        Err(error) if text.contains('@') => {
            return Err(Wrong::new(format!("not an address ({error})"), "write http://host:port"));
        }
        Err(error) => return Err(bad(&format!("not an address ({error})"))),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::new(
            "keys do not belong in an address",
            "name a variable with `token_env`, or a file with `token_file`",
        ));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        _ => return Err(bad("there is no host")),
    };
    let Some(port) = url.port_or_known_default().filter(|port| *port != 0) else {
        return Err(bad("port 0 is no port"));
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("an address has no ? or #"));
    }
    let base = url.as_str().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base).trim_end_matches('/').to_owned();
    Ok(HttpAddress { base, host, port, is_tls: url.scheme() == "https" })
}

/// The text for a message of one line.
fn short(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Whether an address is of this machine or a private network: what is sent there in the clear stays near.
/// Networks of the kind of 100.64.0.0/10 are those of VPNs.
#[must_use]
pub fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = Ipv4Addr::new(100, 64, 0, 0).to_bits() ^ ip.to_bits() < 1 << 22;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || is_local(ip),
    }
}

fn is_local(ip: Ipv6Addr) -> bool {
    ip.is_unique_local() || ip.is_unicast_link_local()
}

/// A network card's address, as `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareAddress(pub [u8; 6]);

impl FromStr for HardwareAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let byte = |part: &&str| {
            (part.len() == 2 && !part.starts_with('+')).then(|| u8::from_str_radix(part, 16).ok())?
        };
        let bytes: Option<Vec<u8>> = parts.iter().map(byte).collect();
        let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        // The lowest bit of the first byte marks a group of cards.
        match bytes.filter(|bytes| bytes.iter().any(|b| *b != 0) && bytes.first().is_some_and(|b| b & 1 == 0))
        {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(Wrong::new(
                format!("`wake` is no hardware address: `{}`", short(text)),
                "write it as aa:bb:cc:dd:ee:ff; `ip link` or `ifconfig` there shows it",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn read(text: &str) -> Result<Address, String> {
        text.parse().map_err(|wrong: Wrong| wrong.to_string())
    }

    fn http(text: &str) -> HttpAddress {
        match read(text) {
            Ok(Address::Http(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn addresses_that_are_good() {
        for url in ["http://h:8080", "http://h:8080/", "http://h:8080/v1", "http://h:8080/v1/"] {
            assert_eq!(http(url).base, "http://h:8080", "{url}");
        }
        assert_eq!(http("http://h/ollama/v1").base, "http://h/ollama");
        let six = http("http://[::1]:80");
        assert_eq!((six.base.as_str(), six.host.as_str(), six.port), ("http://[::1]", "::1", 80));
        assert!(six.is_here() && http("http://127.9.9.9").is_here() && http("https://localhost").is_here());
        assert!(http("http://[::ffff:127.0.0.1]").is_here());
        assert!(!http("http://mac").is_here() && !http("http://192.168.1.2").is_here());
        let tls = http("https://Mac.local");
        assert_eq!((tls.host.as_str(), tls.port, tls.is_tls), ("mac.local", 443, true));
        assert_eq!(read("unix:///run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        let ssh = |user: Option<&str>, host: &str, port| {
            Ok(Address::Ssh(SshHost { user: user.map(str::to_owned), host: host.to_owned(), port }))
        };
        assert_eq!(read("ssh://mac"), ssh(None, "mac", None));
        assert_eq!(read("ssh://me@studio.local:2222/"), ssh(Some("me"), "studio.local", Some(2222)));
        assert_eq!(read("ssh://me@[fe80::1%eth0]:22"), ssh(Some("me"), "fe80::1%eth0", Some(22)));
        for text in ["mac", "me@mac:22", "[::1]:22", "me@::1"] {
            let host: SshHost = text.parse().expect(text);
            assert_eq!(host.to_string(), text);
        }
    }

    #[test]
    fn addresses_that_are_not() {
        for (url, why) in [
            ("h:8080", "no scheme: `h:8080`; write http://h:8080"),
            ("", "no scheme"),
            ("http://", "not an address"),
            ("ws://h", "does not begin with http://"),
            ("http://me:secret@h", "keys do not belong in an address"),
            ("http://me:secret@h:x", "not an address"),
            ("http://h:0", "port 0"),
            ("http://h:99999", "not an address"),
            ("http://h/?x=1", "no ? or #"),
            ("http://h/#x", "no ? or #"),
            ("http://a b/", "no spaces"),
            ("http://a\nb/", "no spaces"),
            ("http://[fe80::1%eth0]:80", "not an address"),
            ("http://[::1", "not an address"),
            ("unix://run/a.sock", "does not begin with /"),
            ("ssh://", "that is no host"),
            ("ssh://-oProxyCommand=x", "that is no host"),
            ("ssh://me:secret@mac", "a password does not belong"),
            ("ssh://mac:0", "no such port"),
            ("ssh://mac:70000", "no such port"),
            ("ssh://[::1]22", "no such port"),
            ("ssh://mac/home", "that is no host"),
            ("ssh://-x@mac", "that is no user"),
            ("ssh://$(x)@mac", "that is no user"),
            ("duet://1.2.3.4:7411?key=x", "`tui backends pair`"),
        ] {
            let error = read(url).expect_err(url);
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let long = read(&format!("http://{}", "x".repeat(10_000))).expect_err("long");
        assert!(long.contains("too long") && long.len() < 300, "{long}");
        assert!(read(&format!("unix:///{}", "x".repeat(120))).is_err());
    }

    #[test]
    fn near_and_far() {
        for near in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.9.9",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:192.168.0.1",
        ] {
            assert!(is_near(near.parse().expect(near)), "{near}");
        }
        for far in
            ["1.1.1.1", "172.32.0.1", "100.63.255.255", "100.128.0.0", "2606:4700::1", "::ffff:8.8.8.8"]
        {
            assert!(!is_near(far.parse().expect(far)), "{far}");
        }
    }

    #[test]
    fn hardware_addresses() {
        let bytes = HardwareAddress([0x0a, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        for text in ["0a:bb:cc:dd:ee:ff", "0A-BB-CC-DD-EE-FF"] {
            assert_eq!(text.parse(), Ok(bytes));
        }
        for bad in [
            "",
            "0a:bb:cc:dd:ee",
            "0a:bb:cc:dd:ee:ff:00",
            "0a:bb:cc:dd:ee:fg",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "abbccddeeff0",
            "+a:bb:cc:dd:ee:ff",
        ] {
            assert!(bad.parse::<HardwareAddress>().is_err(), "{bad}");
        }
    }
}
