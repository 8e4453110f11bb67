//! The machine a server is on: its name made into addresses, and how long a connection to it takes.

use crate::config::address::{HttpAddress, is_near};
use futures_util::future::select_ok;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, lookup_host};

/// For a name to become addresses. Names of the local network (`mac.local`) take their time.
const LOOKUP: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// A host and port.
#[derive(Debug)]
pub(super) struct Peer {
    host: String,
    port: u16,
    /// Whether what is sent can be read on the way, so that it must stay near.
    is_plain: bool,
    known: Arc<Mutex<Known>>,
    /// Addresses in place of a look-up.
    #[cfg(test)]
    pub(super) given: Option<Vec<SocketAddr>>,
}

#[derive(Debug, Default)]
struct Known {
    /// As looked up last, the one to try first at the front.
    addresses: Vec<SocketAddr>,
    /// The one that answered last.
    good: Option<SocketAddr>,
}

/// Why a host has no address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// There is no such name; in the system's words.
    Unknown(String),
    /// Nobody said anything of it for this many seconds.
    Slow(u64),
    /// It is a public address, and nothing hides what is sent.
    Public(IpAddr),
}

impl Peer {
    pub(super) fn new(address: &HttpAddress) -> Self {
        Self {
            host: address.host.clone(),
            port: address.port,
            is_plain: !address.is_tls,
            known: Arc::default(),
            #[cfg(test)]
            given: None,
        }
    }

    /// What hands the addresses to the client.
    pub(super) fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::new(Handed(Arc::clone(&self.known)))
    }

    /// Looks the name up; the address that answered last comes first.
    pub(super) async fn find(&self) -> Result<Vec<SocketAddr>, NoAddress> {
        let mut all = self.lookup().await?;
        if self.is_plain && !all.iter().all(|address| is_near(address.ip())) {
            let public = all.iter().map(SocketAddr::ip).find(|ip| !is_near(*ip));
            all.retain(|address| is_near(address.ip()));
            if let Some(ip) = public.filter(|_| all.is_empty()) {
                return Err(NoAddress::Public(ip));
            }
        }
        all.truncate(MAX_ADDRESSES);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.good.and_then(|good| all.iter().position(|address| *address == good)) {
            all.swap(0, at);
        }
        known.addresses.clone_from(&all);
        Ok(all)
    }

    async fn lookup(&self) -> Result<Vec<SocketAddr>, NoAddress> {
        #[cfg(test)]
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        match tokio::time::timeout(LOOKUP, lookup_host((self.host.as_str(), self.port))).await {
            Ok(Ok(all)) => {
                let all: Vec<SocketAddr> = all.collect();
                if all.is_empty() { Err(NoAddress::Unknown("it has no address".to_owned())) } else { Ok(all) }
            }
            Ok(Err(error)) => Err(NoAddress::Unknown(error.to_string())),
            Err(_) => Err(NoAddress::Slow(LOOKUP.as_secs())),
        }
    }

    /// The address that answered, or none did.
    pub(super) fn answered(&self, address: Option<SocketAddr>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).good = address;
    }

    /// Connects and hangs up at once: the milliseconds it took. Nothing is sent.
    pub(super) async fn knock(&self, patience: Duration) -> Option<f64> {
        let all = self.find().await.ok()?;
        let good = self.known.lock().unwrap_or_else(PoisonError::into_inner).good;
        let tried = all.iter().filter(|address| good.is_none_or(|good| good == **address));
        let began = Instant::now();
        let first = select_ok(tried.map(|address| Box::pin(TcpStream::connect(*address))));
        tokio::time::timeout(patience, first).await.ok()?.ok()?;
        Some(began.elapsed().as_secs_f64() * 1000.0)
    }
}

/// Gives the client the addresses that were looked up for its request.
struct Handed(Arc<Mutex<Known>>);

impl Resolve for Handed {
    fn resolve(&self, _: Name) -> Resolving {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).addresses.clone();
        Box::pin(std::future::ready(Ok(Box::new(all.into_iter()) as Addrs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn peer(url: &str, given: &[&str]) -> Peer {
        let address = match url.parse().expect(url) {
            crate::config::address::Address::Http(address) => address,
            other => panic!("{other:?}"),
        };
        let given = given.iter().map(|ip| SocketAddr::new(ip.parse().expect(ip), 80)).collect();
        Peer { given: Some(given), ..Peer::new(&address) }
    }

    #[tokio::test]
    async fn in_the_clear_only_near_addresses_are_tried() {
        let ips = |all: Vec<SocketAddr>| all.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>();
        let mixed = ["8.8.8.8", "192.168.1.2", "fe80::1"];
        assert_eq!(
            peer("http://mac", &mixed).find().await.map(ips),
            Ok(vec!["192.168.1.2".to_owned(), "fe80::1".to_owned()])
        );
        assert_eq!(peer("https://mac", &mixed).find().await.map(|all| all.len()), Ok(3));
        let public = NoAddress::Public("8.8.8.8".parse().expect("an address"));
        assert_eq!(peer("http://mac", &["8.8.8.8"]).find().await, Err(public));
    }

    #[tokio::test]
    async fn the_address_that_answered_comes_first() {
        let peer = peer("https://mac", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let all = peer.find().await.expect("found");
        peer.answered(all.last().copied());
        assert_eq!(peer.find().await.expect("found").first(), all.last());
        peer.answered(None);
        assert_eq!(peer.find().await.expect("found"), all);
    }
}
