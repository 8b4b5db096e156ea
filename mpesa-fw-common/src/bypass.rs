//! Options of sockets that make a way round TC.

/// A kind of socket whose frames don't come by TC. Index of the map `BYPASSES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Bypass {
    /// A packet socket that hands its frames to the driver itself.
    Packet = 0,
    /// An AF_XDP socket that sends.
    Xdp = 1,
}

impl Bypass {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Packet, Self::Xdp];

    /// The one that an option makes, by its level and number.
    #[inline(always)]
    #[must_use]
    pub const fn of(level: i32, option: i32) -> Option<Self> {
        /// `PACKET_QDISC_BYPASS` of `SOL_PACKET` (if_packet.h). Whatever the value: 0 is the default, and nobody sets it.
        const PACKET_QDISC_BYPASS: (i32, i32) = (263, 20);
        /// `XDP_TX_RING` of `SOL_XDP` (if_xdp.h). Each socket that sends must have one of its own, with a shared UMEM too.
        const XDP_TX_RING: (i32, i32) = (283, 3);
        if level == PACKET_QDISC_BYPASS.0 && option == PACKET_QDISC_BYPASS.1 {
            Some(Self::Packet)
        } else if level == XDP_TX_RING.0 && option == XDP_TX_RING.1 {
            Some(Self::Xdp)
        } else {
            None
        }
    }

    /// The word in metrics and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Packet => "packet_qdisc_bypass",
            Self::Xdp => "af_xdp",
        }
    }
}
