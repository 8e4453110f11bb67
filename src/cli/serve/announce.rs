//! The announcement in the local network, by mDNS, when it was asked for. It says where and with which key:
//! no version, no models.

use crate::error::{AppError, Exit};
use mdns_sd::{ServiceDaemon, ServiceInfo};
use std::net::{IpAddr, SocketAddr};

const SERVICE: &str = "_duet._tcp.local.";

/// Withdrawn when dropped.
pub(super) struct Announced {
    daemon: ServiceDaemon,
    name: String,
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Ok(gone) = self.daemon.unregister(&self.name) {
            let _ = gone.recv_timeout(std::time::Duration::from_secs(1));
        }
        let _ = self.daemon.shutdown();
    }
}

/// Announces until the value is dropped.
pub(super) fn start(listen: SocketAddr, fingerprint: Option<&str>) -> Result<Announced, AppError> {
    let failed = |error: mdns_sd::Error| {
        AppError::new(Exit::Error, format!("serve: cannot announce by mDNS: {error}"))
            .hint("leave out --announce; clients then need the address")
    };
    if listen.ip().to_canonical().is_loopback() {
        return Err(AppError::new(
            Exit::Usage,
            format!("serve: --announce, but nobody else can reach {listen}"),
        )
        .hint("add --listen with an address of the local network, or leave out --announce"));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // One label, as DNS wants it.
    let host: String = host.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    let host = if host.is_empty() { "duet".to_owned() } else { host };
    let tls = if fingerprint.is_some() { "1" } else { "0" };
    let key = fingerprint.map(|fingerprint| format!("sha256:{fingerprint}")).unwrap_or_default();
    let properties = [("tls", tls), ("key", key.as_str())];
    let addresses: Vec<IpAddr> = if listen.ip().is_unspecified() { Vec::new() } else { vec![listen.ip()] };
    let mut service = ServiceInfo::new(
        SERVICE,
        &host,
        &format!("{host}.local."),
        addresses.as_slice(),
        listen.port(),
        &properties[..],
    )
    .map_err(failed)?;
    if listen.ip().is_unspecified() {
        service = service.enable_addr_auto();
    }
    let name = service.get_fullname().to_owned();
    let daemon = ServiceDaemon::new().map_err(failed)?;
    daemon.register(service).map_err(failed)?;
    Ok(Announced { daemon, name })
}
