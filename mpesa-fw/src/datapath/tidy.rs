//! Pins of links that lie where they don't belong any more: interfaces were renamed, went away, or came from another version.

use std::{fs, io, path::Path};

use super::{
    hooks::{Away, Found, Way},
    pins::Pins,
};
use crate::fault::{self, Point};

impl Found {
    /// Removes the pins of dead links, gives the links of renamed interfaces and of other versions their places and names,
    /// and moves those whose interface is away out of the way of another of that name. Detaches nothing.
    pub(super) fn tidy(&mut self, pins: &Pins) {
        for pin in self.dead.drain(..) {
            warn_if_it_stays(&pin, fs::remove_file(&pin));
            fault::passed(Point::LinkTidied);
        }
        for Away { pin, direction, link } in &mut self.away {
            let aside = pins.link_aside(*link, *direction);
            if *pin != aside {
                tracing::warn!(
                    pin = %pin.display(),
                    "a protected interface is in another network namespace: it is judged there until the next reload"
                );
                warn_if_it_stays(pin, fs::rename(&pin, &aside));
                *pin = aside;
            }
        }
        // Through names that no interface has, because two may have changed names with each other, and a rename onto
        // a pin would detach what is pinned there.
        let mut moved = Vec::new();
        for hook in &mut self.hooks {
            let (Way::Xdp(pin) | Way::Tcx(pin)) = &mut hook.way else { continue };
            let wanted = pins.link(&hook.interface.name, hook.direction);
            let passing = pins.link(&format!("/{}", hook.interface.index), hook.direction);
            if *pin != wanted {
                warn_if_it_stays(pin, fs::rename(&pin, &passing));
                fault::passed(Point::LinkTidied);
                moved.push((passing, wanted.clone()));
                *pin = wanted;
            }
        }
        for (passing, wanted) in moved {
            // A rename replaces what lies there: the pin of somebody else, or of a hook that nobody could move.
            if wanted.exists() {
                tracing::warn!(pin = %passing.display(), wanted = %wanted.display(), "the pin of a link stays: its place is taken");
                continue;
            }
            warn_if_it_stays(&passing, fs::rename(&passing, &wanted));
        }
        for junk in self.junk.drain(..) {
            tracing::warn!(path = %junk.display(), "this is no link of mpesa-fw: it is left alone");
        }
    }
}

fn warn_if_it_stays(pin: &Path, answer: io::Result<()>) {
    if let Err(error) = answer {
        tracing::warn!(pin = %pin.display(), %error, "the pin of a link stays as it is");
    }
}
