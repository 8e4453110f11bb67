//! The address of a server, as it is configured. Pure.

use reqwest::Url;

/// An address that can be used.
#[derive(Debug)]
pub(super) struct Address {
    /// Without a slash at the end and without `/v1`.
    pub(super) base: String,
    /// Whether it is this machine, by the look of it.
    pub(super) is_here: bool,
}

/// Reads `http://host:port`, with or without `/v1`.
///
/// # Errors
/// One line naming the backend.
pub(super) fn parse(backend: &str, address: &str) -> Result<Address, String> {
    let shown: String = address.chars().take(80).collect();
    let bad = |why: &str| format!("backend `{backend}`: {why}: `{shown}`; write http://host:port");
    let url = Url::parse(address).map_err(|error| bad(&format!("not an address ({error})")))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The address is not repeated: it holds a password.
        return Err(format!(
            "backend `{backend}`: keys do not belong in an address; name a variable with `token_env`"
        ));
    }
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(format!(
                "backend `{backend}`: this build speaks plain http and the local socket, not https; use http:// or an SSH tunnel to it"
            ));
        }
        _ => return Err(bad("the address does not begin with http://")),
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("there is no host"))?;
    if url.port() == Some(0) {
        return Err(bad("port 0 is no port"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("an address has no ? or #"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here =
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let base = url.as_str().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base).trim_end_matches('/').to_owned();
    Ok(Address { base, is_here })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn addresses() {
        let base = |url: &str| parse("mac", url).map(|address| address.base);
        for url in ["http://h:8080", "http://h:8080/", "http://h:8080/v1", "http://h:8080/v1/"] {
            assert_eq!(base(url).as_deref(), Ok("http://h:8080"), "{url}");
        }
        assert_eq!(base("http://h/ollama/v1").as_deref(), Ok("http://h/ollama"));
        assert_eq!(base("http://[::1]:80").as_deref(), Ok("http://[::1]"));
        let refused = [
            ("h:8080", "does not begin with http://"),
            ("", "not an address"),
            ("http://", "not an address"),
            ("ws://h", "does not begin with http://"),
            ("https://h", "this build speaks plain http"),
            ("http://me:secret@h", "keys do not belong in an address"),
            ("http://h:0", "port 0"),
            ("http://h:99999", "not an address"),
            ("http://h/?x=1", "no ? or #"),
            ("http://h/#x", "no ? or #"),
            ("http://a b/", "not an address"),
        ];
        for (url, why) in refused {
            let error = base(url).expect_err(url);
            assert!(
                error.contains(why) && error.contains("`mac`") && !error.contains("secret"),
                "{url}: {error}"
            );
            assert_eq!(error.lines().count(), 1);
        }
        assert!(base(&format!("ftp://{}", "x".repeat(10_000))).expect_err("long").len() < 300);
    }
}
