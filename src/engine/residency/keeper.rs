//! Unloads models that nobody has used for as long as they are kept. Wakes only when one is due or something changed.

use crate::engine::host::Host;

/// Keeps watch until it is dropped.
pub async fn keep(host: Host) {
    let mut changed = host.changed();
    loop {
        changed.mark_unchanged();
        let next = host.unload_expired();
        let due = async {
            match next {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            result = changed.changed() => if result.is_err() { return },
        }
    }
}
