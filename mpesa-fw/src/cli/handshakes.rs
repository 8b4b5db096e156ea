//! The part of `mpesa-fw status` on completed connections.

use time::OffsetDateTime;

use super::{output::table, when::ago};
use crate::agent::Status;

/// SYNs prove nothing, finished handshakes do: both, by service.
pub(super) fn handshakes(status: &Status, now: OffsetDateTime) -> String {
    let Some(services) = &status.handshakes else {
        return "\n completed connections are not counted\n".to_owned();
    };
    if services.is_empty() {
        return String::new();
    }
    let rows = services.iter().map(|service| {
        let last = service.last_connection.map_or_else(|| "never".to_owned(), |time| ago(time, now));
        vec![
            format!("service {}", service.service),
            service.connections.to_string(),
            last,
            service.syns.to_string(),
            per_connection(service.syns, service.connections),
        ]
    });
    let head = ["COMPLETED CONNECTIONS", "COUNT", "LAST", "SYNS PASSED", "SYNS A CONNECTION"];
    format!("\n{}", table(&head, rows))
}

/// About 1 where all is well; the more, the more SYNs came from nobody.
fn per_connection(syns: u64, connections: u64) -> String {
    if connections == 0 { "-".to_owned() } else { format!("{:.1}", syns as f64 / connections as f64) }
}
