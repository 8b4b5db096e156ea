//! The SSH connection of whoever typed the command, for the lock-out guard.

use std::{env, fs};

use crate::agent::SshConnection;

/// Longest chain of processes that is followed.
const GENERATIONS: usize = 32;
const VARIABLE: &str = "SSH_CONNECTION";

/// From the environment; `sudo` drops the variable, so the parents' environments are looked at too.
pub(super) fn ssh_connection() -> Option<SshConnection> {
    if let Some(value) = env::var_os(VARIABLE).and_then(|v| v.into_string().ok()) {
        return SshConnection::parse(&value);
    }
    let mut pid = parent_of("self")?;
    for _ in 0..GENERATIONS {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if let Some(connection) = variable(&environment).and_then(SshConnection::parse) {
            return Some(connection);
        }
        pid = parent_of(&pid.to_string()).filter(|parent| *parent > 1)?;
    }
    None
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
