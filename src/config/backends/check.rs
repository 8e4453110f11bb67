//! What the types of a `[[backend]]` can't say: whether its keys go together.

use super::super::address::{Address, HardwareAddress, SshHost, Wrong, is_near};
use super::super::fingerprint::Fingerprint;
use super::{BackendConfig, BackendKind};

impl BackendConfig {
    /// Reads its address and checks that everything about the way to it goes together.
    ///
    /// # Errors
    /// What is wrong, without the backend's name, and the next step.
    pub fn check(&self) -> Result<Address, Wrong> {
        let address: Address = self.url.parse()?;
        let tunnel = self
            .ssh
            .as_deref()
            .map(str::parse::<SshHost>)
            .transpose()
            .map_err(|wrong| Wrong::new(format!("`ssh`: {}", wrong.what), wrong.next))?;
        let keys = [self.token_env.is_some(), self.token_file.is_some(), self.token_keyring];
        let has_key = keys.contains(&true);
        if keys.iter().filter(|is_there| **is_there).count() > 1 {
            return Err(Wrong::new(
                "it has several keys",
                "keep one of `token_env`, `token_file` and `token_keyring`",
            ));
        }
        if let Some(text) = &self.fingerprint {
            text.parse::<Fingerprint>()?;
            if !matches!(&address, Address::Http(address) if address.is_tls) {
                return Err(Wrong::new(
                    "a fingerprint is for https:// only",
                    "write https:// where the server speaks TLS, or remove `fingerprint`",
                ));
            }
        }
        if let Some(text) = &self.wake {
            text.parse::<HardwareAddress>()?;
            let is_here = match &address {
                Address::Http(address) => address.is_here(),
                Address::Unix(_) => true,
                Address::Ssh(_) => false,
            };
            if is_here && tunnel.is_none() {
                return Err(Wrong::new("this machine is awake", "remove `wake`"));
            }
        }
        match &address {
            Address::Ssh(_) => self.check_ssh(has_key)?,
            Address::Http(address) if !address.is_tls && !address.is_here() && tunnel.is_none() => {
                let use_instead = "use https://, or `ssh = \"host\"` for a tunnel";
                if has_key {
                    return Err(Wrong::new(
                        "a key is not sent over plain http to another machine",
                        use_instead,
                    ));
                }
                if self.private {
                    return Err(Wrong::new(
                        "it is marked `private`, but what is sent over plain http can be read on the way",
                        use_instead,
                    ));
                }
                if address.ip().is_some_and(|ip| !is_near(ip)) {
                    return Err(Wrong::new(
                        "questions are not sent over plain http to a public address",
                        use_instead,
                    ));
                }
            }
            Address::Http(_) | Address::Unix(_) => {}
        }
        Ok(address)
    }

    fn check_ssh(&self, has_key: bool) -> Result<(), Wrong> {
        if self.ssh.is_some() {
            return Err(Wrong::new(
                "`ssh` beside an ssh:// address",
                "remove `ssh`; jump hosts belong into ~/.ssh/config",
            ));
        }
        if has_key {
            return Err(Wrong::new("over ssh:// no key is needed", "remove the `token_…` line"));
        }
        if self.kind.is_some_and(|kind| kind != BackendKind::Duet) {
            return Err(Wrong::new(
                "ssh:// is for an engine of ours",
                "for another server write its own `url`, as that host sees it, and `ssh = \"host\"`",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused() {
        let backend = |lines: &str| -> BackendConfig {
            toml::from_str(&format!("name = \"mac\"\n{lines}")).expect("it parses")
        };
        let pin = format!("fingerprint = \"{}\"", Fingerprint([7; 32]));
        let tls = format!("url = \"https://mac:7411\"\n{pin}");
        for good in [
            "url = \"http://192.168.1.2\"",
            "url = \"http://mac\"",
            "url = \"http://localhost:1\"\ntoken_env = \"K\"\nprivate = true",
            "url = \"http://localhost:1\"\nssh = \"me@mac:22\"\ntoken_keyring = true\nwake = \"0a:bb:cc:dd:ee:ff\"",
            "url = \"http://8.8.8.8\"\nssh = \"mac\"",
            "url = \"https://8.8.8.8\"\ntoken_file = \"k\"\nprivate = true",
            "url = \"unix:///run/a.sock\"\ntoken_env = \"K\"",
            "url = \"unix:///run/a.sock\"\nssh = \"mac\"",
            "url = \"ssh://mac\"\nprivate = true\nkind = \"duet\"\nwake = \"0a:bb:cc:dd:ee:ff\"",
            &tls,
        ] {
            assert!(backend(good).check().is_ok(), "{good}: {:?}", backend(good).check());
        }
        for (bad, words) in [
            ("url = \"http://mac\"\ntoken_env = \"K\"", "a key is not sent over plain http"),
            ("url = \"http://mac\"\nprivate = true", "can be read on the way"),
            ("url = \"http://8.8.8.8\"", "public address"),
            ("url = \"https://mac\"\ntoken_env = \"K\"\ntoken_keyring = true", "several keys"),
            ("url = \"https://mac\"\nfingerprint = \"sha256:x\"", "43 characters"),
            (&format!("url = \"http://mac\"\n{pin}"), "https:// only"),
            (&format!("url = \"ssh://mac\"\n{pin}"), "https:// only"),
            ("url = \"ssh://mac\"\nssh = \"x\"", "beside an ssh:// address"),
            ("url = \"ssh://mac\"\ntoken_env = \"K\"", "no key is needed"),
            ("url = \"ssh://mac\"\nkind = \"ollama\"", "engine of ours"),
            ("url = \"http://mac\"\nssh = \"-x\"", "`ssh`: that is no host"),
            ("url = \"http://mac\"\nwake = \"x\"", "no hardware address"),
            ("url = \"http://[::1]\"\nwake = \"0a:bb:cc:dd:ee:ff\"", "this machine is awake"),
            ("url = \"mac\"", "no scheme"),
        ] {
            let error = backend(bad).check().expect_err(bad).to_string();
            assert!(error.contains(words) && error.lines().count() == 1, "{bad}: {error}");
        }
    }
}
