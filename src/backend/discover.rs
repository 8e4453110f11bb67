//! Servers that announce themselves in the local network, by mDNS. Only when the person asks.

use crate::config::fingerprint::Fingerprint;
use mdns_sd::{ServiceDaemon, ServiceEvent};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What `tui serve --announce` calls itself.
const SERVICE: &str = "_duet._tcp.local.";

/// A server that announced itself. Anybody in the network can say so: its key is a hint, no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Its name.
    pub name: String,
    /// Its addresses, those of IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Whether it says that it speaks TLS.
    pub is_tls: bool,
    /// The key it says it has.
    pub fingerprint: Option<Fingerprint>,
}

impl Announced {
    /// Its address as a URL; none when it told none.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        Some(match self.addresses.first()? {
            IpAddr::V4(ip) => format!("{scheme}://{ip}:{}", self.port),
            IpAddr::V6(ip) => format!("{scheme}://[{ip}]:{}", self.port),
        })
    }
}

/// Listens for this long. Blocks.
///
/// # Errors
/// One line, when nothing can be heard.
pub fn discover(patience: Duration) -> Result<Vec<Announced>, String> {
    let failed = |error: mdns_sd::Error| format!("the local network can't be listened to: {error}");
    let daemon = ServiceDaemon::new().map_err(failed)?;
    let events = daemon.browse(SERVICE).map_err(failed)?;
    let deadline = Instant::now() + patience;
    let mut found = BTreeMap::new();
    while let Ok(event) = events.recv_deadline(deadline) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let mut addresses: Vec<IpAddr> =
                    service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
                // Without the interface they are on, these reach nobody.
                addresses.retain(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
                addresses.sort();
                addresses.dedup();
                let text = |name: &str| service.txt_properties.get_property_val_str(name).unwrap_or_default();
                let name = service.fullname.strip_suffix(&format!(".{SERVICE}")).unwrap_or(&service.fullname);
                let announced = Announced {
                    name: name.to_owned(),
                    addresses,
                    port: service.port,
                    is_tls: text("tls") == "1",
                    fingerprint: text("key").parse().ok(),
                };
                found.insert(service.fullname.clone(), announced);
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                found.remove(&name);
            }
            _ => {}
        }
    }
    let _ = daemon.shutdown();
    Ok(found.into_values().collect())
}
