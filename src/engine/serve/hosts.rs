//! Whom a request says it is for, and which web page sent it. This is what keeps pages in a browser of the
//! user's from talking to the engine, also those whose name suddenly means this machine.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use std::net::IpAddr;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names and pages that are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    /// Lower case.
    names: Vec<String>,
    origins: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Host,
    Origin,
}

impl Allowed {
    pub(super) fn new(names: &[String], origins: &[String]) -> Self {
        let lower = |all: &[String]| all.iter().map(|text| text.to_ascii_lowercase()).collect();
        Self { names: lower(names), origins: lower(origins) }
    }

    /// Whether a request may be read at all; the page that sent it, where it is one that may.
    /// `local` is the address the client connected to.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        local: IpAddr,
    ) -> Result<Option<HeaderValue>, Wrong> {
        // An absolute target would be a second host beside the header's.
        let mut hosts = headers.get_all(header::HOST).iter();
        let is_known = match (hosts.next(), hosts.next(), uri.authority()) {
            (Some(host), None, None) => host.to_str().is_ok_and(|host| self.is_known(host, local)),
            _ => false,
        };
        if !is_known {
            return Err(Wrong::Host);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => None,
            (Some(origin), None) if self.is_page(origin) => Some(origin.clone()),
            (Some(_), _) => return Err(Wrong::Origin),
        };
        // A page that is known may be another site.
        let is_own_site = |site: &HeaderValue| site == "none" || site == "same-origin";
        if origin.is_none() && !headers.get_all(FETCH_SITE).iter().all(is_own_site) {
            return Err(Wrong::Origin);
        }
        Ok(origin)
    }

    fn is_page(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.contains(&origin.to_ascii_lowercase()))
    }

    /// The port may be another one: that of a tunnel.
    fn is_known(&self, host: &str, local: IpAddr) -> bool {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => (address, rest.strip_prefix(':').or(rest.is_empty().then_some("80"))),
            None => match host.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host, Some("80")),
            },
        };
        let is_number = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
        if !port.is_some_and(|port| is_number(port) && port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return false;
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return address.to_canonical() == local.to_canonical()
                || (address.is_loopback() && local.to_canonical().is_loopback());
        }
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        name == "localhost" || self.names.iter().any(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        Allowed::new(&["Mac.local".to_owned()], &["https://chat.example".to_owned()])
    }

    fn check(headers: &[(&'static str, &str)], uri: &str, local: &str) -> Result<bool, Wrong> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let origin = allowed().check(&map, &uri.parse().unwrap(), local.parse().unwrap())?;
        Ok(origin.is_some())
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let host = |host: &str, local: &str| check(&[("host", host)], "/v1/models", local);
        for good in ["127.0.0.1", "127.0.0.1:7411", "localhost:80", "LOCALHOST.", "mac.local:7411", "[::1]:1"]
        {
            assert_eq!(host(good, "127.0.0.1"), Ok(false), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "127.0.0.1.nip.io",
            "127.0.0.1:0",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:+80",
            "127.0.0.1:80:80",
            "127.0.0.1:65536",
            "user@127.0.0.1",
            "192.168.1.5",
            "::1",
            "[::1",
            "[::1]x",
            "0.0.0.0",
            "2130706433",
            "localhost.evil.example",
            "mac.local..",
        ] {
            assert_eq!(host(bad, "127.0.0.1"), Err(Wrong::Host), "{bad}");
        }
        assert_eq!(host("192.168.1.5:7411", "192.168.1.5"), Ok(false));
        assert_eq!(host("192.168.1.5", "::ffff:192.168.1.5"), Ok(false));
        assert_eq!(host("127.0.0.1", "192.168.1.5"), Err(Wrong::Host));
        assert_eq!(host("[fe80::1]", "fe80::1"), Ok(false));
        assert_eq!(check(&[], "/", "127.0.0.1"), Err(Wrong::Host));
        assert_eq!(
            check(&[("host", "localhost"), ("host", "localhost")], "/", "127.0.0.1"),
            Err(Wrong::Host)
        );
        assert_eq!(check(&[("host", "localhost")], "http://localhost/x", "127.0.0.1"), Err(Wrong::Host));
    }

    #[test]
    fn pages_are_refused_unless_configured() {
        let page = |headers: &[(&'static str, &str)]| {
            let mut all = vec![("host", "localhost")];
            all.extend_from_slice(headers);
            check(&all, "/", "127.0.0.1")
        };
        for (headers, expected) in [
            (&[("sec-fetch-site", "none")][..], Ok(false)),
            (&[("sec-fetch-site", "same-origin")], Ok(false)),
            (&[("origin", "https://chat.example")], Ok(true)),
            (&[("origin", "https://chat.example"), ("sec-fetch-site", "cross-site")], Ok(true)),
            (&[("sec-fetch-site", "cross-site")], Err(Wrong::Origin)),
            (&[("sec-fetch-site", "same-site")], Err(Wrong::Origin)),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], Err(Wrong::Origin)),
            (&[("origin", "null")], Err(Wrong::Origin)),
            (&[("origin", "http://localhost")], Err(Wrong::Origin)),
            (&[("origin", "https://chat.example.evil")], Err(Wrong::Origin)),
            (&[("origin", "https://chat.example"), ("origin", "https://evil")], Err(Wrong::Origin)),
        ] {
            assert_eq!(page(headers), expected, "{headers:?}");
        }
    }
}
