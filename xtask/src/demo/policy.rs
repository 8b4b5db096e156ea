//! The shipped policy, edited as its comments tell the admin to.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use testbed::Firewall;

use super::scene::Scene;
use crate::process::workspace;

/// A rules file and what it includes.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    rules: String,
    safaricom: String,
}

impl Policy {
    /// `rules/dedicated.yaml` with the addresses of this scene, enforcing.
    ///
    /// # Errors
    /// A file can't be read, or no longer holds what is to be replaced.
    pub(super) fn shipped(scene: &Scene) -> Result<Self> {
        let directory = workspace().join("rules");
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
        };
        let intranet = scene.intranet.place.v4;
        let policy = Self { rules: read("dedicated.yaml")?, safaricom: read("safaricom.yaml")? };
        policy
            .edited("\nmode: observe", "\nmode: enforce")?
            .edited("admins: [203.0.113.7, 198.51.100.0/28]", &format!("admins: [{intranet}]"))?
            .edited("name: dns, to: [10.0.0.2]", &format!("name: dns, to: [{intranet}]"))
    }

    /// With one more service, for the intranet.
    pub(super) fn with_service(&self, name: &str, port: u16) -> Self {
        let service = format!("  services:\n    - {{ name: {name}, ports: [{port}], from: [intranet] }}\n");
        Self { rules: self.rules.replacen("  services:\n", &service, 1), ..self.clone() }
    }

    /// With a set that does not exist.
    pub(super) fn with_mistake(&self) -> Self {
        Self { rules: self.rules.replacen("from: [safaricom]", "from: [safricom]", 1), ..self.clone() }
    }

    /// Writes both files to where the agent reads them.
    ///
    /// # Errors
    /// They can't be written.
    pub(super) fn write(&self, firewall: &Firewall<'_>) -> Result<()> {
        firewall.write("safaricom.yaml", &self.safaricom)?;
        firewall.policy(&self.rules)
    }

    fn edited(self, from: &str, to: &str) -> Result<Self> {
        ensure!(
            self.rules.contains(from),
            "rules/dedicated.yaml no longer holds {from:?}, which the demo edits"
        );
        Ok(Self { rules: self.rules.replacen(from, to, 1), ..self })
    }
}
