//! Where ingress is judged.

/// The hook that judges what comes in, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// XDP in the driver.
    Native,
    /// XDP in the network stack.
    Generic,
    /// TC, because a foreign XDP program owns the interface.
    Tc,
    /// No firewall: what shows that the witness would see a frame that gets through.
    Bare,
}

impl Mode {
    /// As `status` names it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
            Self::Bare => "no firewall",
        }
    }
}
