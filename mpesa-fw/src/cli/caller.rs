//! The SSH connection of whoever typed the command, for the lock-out guard.

use std::{collections::HashSet, env, fs};

use procfs::{
    net::TcpState,
    process::{FDTarget, Process},
};

use crate::agent::SshConnection;

/// Longest chain of processes that is followed.
const GENERATIONS: usize = 32;
const VARIABLE: &str = "SSH_CONNECTION";

/// From the environment; `sudo` drops the variable, so the parents' environments are looked at too, and where nobody has
/// it (`env -i`), the connection of the sshd among them.
pub(super) fn ssh_connection() -> Option<SshConnection> {
    let own = env::var_os(VARIABLE).and_then(|v| v.into_string().ok());
    if let Some(connection) = own.as_deref().and_then(SshConnection::parse) {
        return Some(connection);
    }
    let ancestors = ancestors();
    ancestors
        .iter()
        .find_map(|pid| of_environment(*pid))
        .or_else(|| ancestors.iter().find_map(|pid| of_sshd(*pid)))
}

/// The parent, its parent and so on, without init.
fn ancestors() -> Vec<u32> {
    std::iter::successors(parent_of("self"), |pid| parent_of(&pid.to_string()))
        .take_while(|pid| *pid > 1)
        .take(GENERATIONS)
        .collect()
}

fn of_environment(pid: u32) -> Option<SshConnection> {
    variable(&fs::read(format!("/proc/{pid}/environ")).ok()?).and_then(SshConnection::parse)
}

/// The one connection that the sshd of a session holds open (`sshd`, from OpenSSH 9.8 on `sshd-session`).
fn of_sshd(pid: u32) -> Option<SshConnection> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    if !process.stat().ok()?.comm.starts_with("sshd") {
        return None;
    }
    let held: HashSet<u64> = process
        .fd()
        .ok()?
        .filter_map(|descriptor| match descriptor.ok()?.target {
            FDTarget::Socket(inode) => Some(inode),
            FDTarget::Path(_)
            | FDTarget::Net(_)
            | FDTarget::Pipe(_)
            | FDTarget::AnonInode(_)
            | FDTarget::MemFD(_)
            | FDTarget::Other(..)
            | FDTarget::Unknown(..) => None,
        })
        .collect();
    let sockets = process.tcp().into_iter().flatten().chain(process.tcp6().into_iter().flatten());
    let mut open = sockets.filter(|s| held.contains(&s.inode) && s.state == TcpState::Established);
    let socket = open.next()?;
    Some(SshConnection {
        client: socket.remote_address.ip().to_canonical(),
        client_port: socket.remote_address.port(),
        server: socket.local_address.ip().to_canonical(),
        server_port: socket.local_address.port(),
    })
}

/// Its value in the bytes of a `/proc/PID/environ`.
fn variable(environment: &[u8]) -> Option<&str> {
    environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .find_map(|entry| entry.strip_prefix(VARIABLE)?.strip_prefix('='))
}

/// Field 4 of `/proc/PID/stat`; field 2 may hold blanks and parentheses.
fn parent_of(pid: &str) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_found_among_others() {
        let environment =
            b"HOME=/root\0XSSH_CONNECTION=no\0SSH_CONNECTION=203.0.113.7 52814 10.0.0.5 22\0TERM=vt100\0";
        let connection = variable(environment).and_then(SshConnection::parse).unwrap();
        assert_eq!(connection.client.to_string(), "203.0.113.7");
        assert_eq!(variable(b"HOME=/root\0"), None);
    }

    #[test]
    fn the_parent_is_found() {
        assert_eq!(parent_of("self"), Some(std::os::unix::process::parent_id()));
    }
}
