//! Wake-on-LAN: the packet that wakes a machine, and how long it then took to be there.

use super::Backend;
use crate::chat::{GenError, GenErrorKind};
use crate::config::address::HardwareAddress;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

/// The port the packet goes to; nobody needs to listen there.
const PORT: u16 = 9;
/// Between two packets, as the first may be lost.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks whether it is there.
const LOOK: Duration = Duration::from_secs(1);
/// For a machine to be there. Some start from nothing.
const WAKE: Duration = Duration::from_secs(180);

/// What came of waking a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It was awake: nothing was sent.
    WasAwake,
    /// It woke within this time.
    Woke(Duration),
}

impl Backend {
    /// Whether its configuration says how it is woken.
    #[must_use]
    pub fn can_wake(&self) -> bool {
        self.inner.wake.is_some()
    }

    /// Time it takes to wake in milliseconds: the median of the last wakes; none before the first.
    #[must_use]
    pub fn wake_ms(&self) -> Option<f64> {
        self.inner.learned.as_ref()?.wake_ms()
    }

    /// Wakes its machine when nobody answers there, and waits until somebody does. How long that took is remembered.
    ///
    /// # Errors
    /// When its configuration does not say how, no packet can be sent, or nobody is there after three minutes.
    pub async fn wake(&self) -> Result<Woken, GenError> {
        let name = self.name();
        let unreachable = |message: String| GenError::new(GenErrorKind::Unreachable, message);
        let Some(card) = self.inner.wake else {
            return Err(unreachable(format!(
                "{name} can't be woken: its hardware address is not known\nadd `wake = \"aa:bb:cc:dd:ee:ff\"` to backend {name}"
            )));
        };
        if self.is_there().await {
            return Ok(Woken::WasAwake);
        }
        let began = Instant::now();
        let mut sent: Option<Instant> = None;
        while began.elapsed() < WAKE {
            if sent.is_none_or(|at| at.elapsed() >= AGAIN) {
                send(card, &targets()).await.map_err(|error| {
                    unreachable(format!("{name} can't be woken: no packet can be sent: {error}\nsee whether this machine is on the network"))
                })?;
                sent = Some(Instant::now());
            }
            let look = Instant::now();
            if self.is_there().await {
                let took = began.elapsed();
                if let Some(learned) = &self.inner.learned {
                    learned.add_wake(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
                }
                return Ok(Woken::Woke(took));
            }
            sleep(LOOK.saturating_sub(look.elapsed())).await;
        }
        Err(unreachable(format!(
            "{name} did not wake within {} s\nsee that Wake-on-LAN is turned on there, and that `wake` of backend {name} is its address",
            WAKE.as_secs()
        )))
    }

    /// Whether somebody answers, without asking for anything.
    async fn is_there(&self) -> bool {
        let Some(tunnel) = self.inner.http.tunnel_of() else {
            return self.inner.http.knock().await.is_some();
        };
        match super::ssh::knock(tunnel.host(), LOOK).await {
            Ok(took) => took.is_some(),
            // Behind another host: only the tunnel itself can tell.
            Err(()) => tunnel.ready().await.is_ok(),
        }
    }
}

/// Where the packet goes: all of every network this machine is on.
fn targets() -> Vec<(Ipv4Addr, SocketAddr)> {
    let mut all = vec![(Ipv4Addr::UNSPECIFIED, SocketAddr::from((Ipv4Addr::BROADCAST, PORT)))];
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        if let if_addrs::IfAddr::V4(v4) = &interface.addr
            && !interface.is_loopback()
        {
            all.push((v4.ip, SocketAddr::new(IpAddr::V4(everybody(v4.ip, v4.netmask)), PORT)));
        }
    }
    all
}

/// The address of all of a network. The one the system tells is the interface's own where none was set.
fn everybody(ip: Ipv4Addr, mask: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip.to_bits() | !mask.to_bits())
}

/// Sends it to each, from the address of its network.
///
/// # Errors
/// When it could be sent nowhere: the last reason.
async fn send(card: HardwareAddress, targets: &[(Ipv4Addr, SocketAddr)]) -> std::io::Result<()> {
    let packet = packet(card);
    let mut last = Err(std::io::Error::other("there is no network"));
    for (from, to) in targets {
        let one = async {
            let socket = UdpSocket::bind((*from, 0)).await?;
            socket.set_broadcast(true)?;
            socket.send_to(&packet, to).await
        };
        match one.await {
            Ok(_) => last = Ok(()),
            Err(error) if last.is_err() => last = Err(error),
            Err(_) => {}
        }
    }
    last
}

/// Six bytes of ones, then the address sixteen times.
fn packet(card: HardwareAddress) -> [u8; 102] {
    std::array::from_fn(|at| match at {
        0..6 => 0xff,
        _ => card.0.get(at % 6).copied().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn all_of_a_network() {
        let of = |ip: [u8; 4], mask: [u8; 4]| everybody(ip.into(), mask.into()).octets();
        assert_eq!(of([192, 168, 1, 7], [255, 255, 255, 0]), [192, 168, 1, 255]);
        assert_eq!(of([10, 1, 2, 3], [255, 0, 0, 0]), [10, 255, 255, 255]);
    }

    #[tokio::test]
    async fn the_packet_arrives_as_cards_want_it() {
        let card = HardwareAddress([0x0a, 1, 2, 3, 4, 5]);
        let sleeper = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let to = sleeper.local_addr().expect("an address");
        let nowhere = (Ipv4Addr::new(203, 0, 113, 1), to);
        send(card, &[nowhere, (Ipv4Addr::LOCALHOST, to)]).await.expect("one of them works");
        let mut bytes = [0; 200];
        let count = sleeper.recv(&mut bytes).await.expect("it arrives");
        assert_eq!((count, &bytes[..6]), (102, &[0xff; 6][..]));
        assert!(bytes[6..102].chunks_exact(6).all(|chunk| chunk == card.0), "{bytes:?}");
        assert!(send(card, &[nowhere]).await.is_err(), "an address of nobody here");
    }
}
