//! What a process that reads a foreign model file may not do: talk to the network. Best effort: a kernel or a
//! system without the means only loses this line of defence, and `tui doctor` says so.

#[cfg(target_os = "linux")]
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Takes the network from this process and everything it starts, for good. Sockets of the machine itself (Unix)
/// stay: drivers of accelerators use them.
///
/// # Errors
/// One line, where that can't be done.
#[cfg(target_os = "linux")]
pub fn enter() -> Result<(), String> {
    let program = program().map_err(|e| e.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|e| e.to_string())
}

/// Nothing is taken here.
///
/// # Errors
/// Always: there is no way that is known to work on this system.
#[cfg(not(target_os = "linux"))]
pub fn enter() -> Result<(), String> {
    Err("this system has no filter for it".to_owned())
}

#[cfg(target_os = "linux")]
fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let family = |number: libc::c_int| {
        let number = u64::from(number.unsigned_abs());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let rules = [
        (libc::SYS_socket, vec![family(libc::AF_INET)?, family(libc::AF_INET6)?]),
        // It can make sockets too; nothing of llama.cpp uses it.
        (libc::SYS_io_uring_setup, Vec::new()),
    ];
    let denied = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, denied, architecture)?.try_into()
}

/// Whether a process can be kept from the network here, tried on a thread that ends with it.
///
/// # Errors
/// One line that says why not.
pub fn test() -> Result<&'static str, String> {
    let tried = std::thread::spawn(|| {
        #[cfg(target_os = "linux")]
        seccompiler::apply_filter(&program().map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        #[cfg(not(target_os = "linux"))]
        enter()?;
        match std::net::TcpListener::bind("127.0.0.1:0") {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("the filter had no effect".to_owned()),
        }
    });
    tried.join().unwrap_or_else(|_| Err("it could not be tried".to_owned()))?;
    Ok("of its own that can't reach the network")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_network_is_gone_and_unix_sockets_are_not() {
        let tried = std::thread::spawn(|| {
            let program = super::program().expect("a filter for this CPU");
            seccompiler::apply_filter(&program).expect("this kernel has seccomp");
            for address in ["127.0.0.1:0", "[::1]:0"] {
                let error = std::net::TcpListener::bind(address).expect_err("denied");
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
                let error = std::net::UdpSocket::bind(address).expect_err("denied");
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            }
            std::os::unix::net::UnixStream::pair().expect("sockets of the machine stay");
        });
        tried.join().expect("on a thread of its own, because it can't be undone");
        std::net::TcpListener::bind("127.0.0.1:0").expect("other threads keep the network");
    }
}
