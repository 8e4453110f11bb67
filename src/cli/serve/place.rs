//! Addresses: as typed, as named in a certificate, as other machines reach them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port when none is given.
const PORT: u16 = 7411;

/// What stands after `--listen`: an address, a port, or both.
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    // What is left without the name is a port, or nothing.
    let port = match text.strip_prefix("localhost") {
        Some("") => return Ok(SocketAddr::new(local, PORT)),
        Some(rest) => rest.strip_prefix(':').unwrap_or_default(),
        None => text.strip_prefix(':').unwrap_or(text),
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, PORT));
    }
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::new(local, port));
    }
    Err(format!("needs an address of this machine, a port, or both as 192.168.1.5:{PORT}, not \"{text}\""))
}

/// Interfaces of this machine with their addresses, loopback left out.
pub(super) fn interfaces() -> Vec<(String, IpAddr)> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    all.into_iter()
        .filter(|interface| !interface.is_loopback())
        .map(|interface| (interface.name.clone(), interface.ip()))
        .collect()
}

/// Whom a certificate made here shall name.
pub(super) fn names(listen: SocketAddr, configured: &[String]) -> Vec<String> {
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if listen.ip().is_unspecified() {
        all.extend(interfaces().into_iter().map(|(_, address)| address.to_string()));
    } else {
        all.push(listen.ip().to_canonical().to_string());
    }
    all.extend(configured.iter().map(|name| name.to_ascii_lowercase()));
    let mut seen = std::collections::HashSet::new();
    all.retain(|name| seen.insert(name.clone()));
    all
}

/// The address another machine would use.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let all = interfaces();
    let best = all.iter().find(|(_, address)| address.is_ipv4()).or(all.first());
    SocketAddr::new(best.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(_, address)| *address), listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0", "0.0.0.0:7411"),
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:7411"),
            ("localhost:1", "127.0.0.1:1"),
            ("::1", "[::1]:7411"),
            ("[::1]", "[::1]:7411"),
            ("[::]:5", "[::]:5"),
        ] {
            assert_eq!(parse(text).map(|a| a.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for wrong in
            ["", "localhostx", "localhost8", "mac.local", "1.2.3.4.5", "70000", "localhost:x", "http://x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}: {:?}", parse(wrong));
        }
    }

    #[test]
    fn a_certificate_names_each_host_once() {
        let names = names("127.0.0.1:1".parse().unwrap(), &["Mac.local".to_owned(), "localhost".to_owned()]);
        assert_eq!(names, ["localhost", "127.0.0.1", "::1", "mac.local"]);
    }
}
