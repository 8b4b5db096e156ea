//! Why a packet passed or was dropped. One row an enum variant: the metric label, the JSON, the
//! documentation and the tests all derive from it.

/// A code that is no reason of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason(pub u8);

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $label:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $code,)+ }

        impl $name {
            /// Every reason, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in metrics, JSON and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }

        impl TryFrom<u8> for $name {
            type Error = UnknownReason;
            fn try_from(code: u8) -> Result<Self, UnknownReason> {
                match code { $($code => Ok(Self::$variant),)+ other => Err(UnknownReason(other)) }
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped. Append only: the codes are in pinned counters.
    DropReason {
        /// The frame carries neither IP nor a protocol the link layer needs.
        UnknownEthertype = 0, "unknown_ethertype";
        /// A header is cut short, has a wrong length or version, or the header chain can't be walked.
        Malformed = 1, "malformed";
        /// No honest packet has this source: an address of this host, loopback, multicast, broadcast, unspecified.
        Spoofed = 2, "spoofed";
        /// A fragment that can't be judged: its first one did not pass, or it cuts or overlaps the transport header.
        Fragment = 3, "fragment";
        /// A service claims the port, but not for this source or local address.
        SourceNotAllowed = 4, "source_not_allowed";
        /// The service allows the source, which has spent its limit.
        RateLimited = 5, "rate_limited";
        /// No service claims this protocol and port.
        NoService = 6, "no_service";
        /// A destination names this protocol and port, but not to there.
        DestinationNotAllowed = 7, "destination_not_allowed";
        /// Only destinations by DNS name claim this protocol and port, and none of the names resolved to this address.
        NameNotAllowed = 8, "name_not_allowed";
        /// Everything fits but the program that sends.
        OwnerNotAllowed = 9, "owner_not_allowed";
        /// No destination names this protocol and port.
        NoDestination = 10, "no_destination";
        /// The packet is allowed, but its flow could not be recorded, so that its replies would be lost.
        FlowTableFull = 11, "flow_table_full";
        /// A table that must answer did not: a defect of mpesa-fw; fails closed.
        Internal = 12, "internal";
    }
}

reasons! {
    /// Why a packet passed.
    PassReason {
        /// A protocol of the link layer (ARP, LLDP, LACP, EAPOL, spanning tree).
        LinkLayer = 0, "link_layer";
        /// Traffic the host cannot live without: DHCP, neighbour discovery, MLD, related ICMP errors.
        Control = 1, "control";
        /// A later fragment of a packet that passed.
        Fragment = 2, "fragment";
        /// A service allows it.
        Service = 3, "service";
        /// A packet of a flow that this host opened.
        Flow = 4, "flow";
        /// A reply of a service to a source that it allows.
        ServiceReply = 5, "service_reply";
        /// A destination allows it; it opened a flow, if it asks for an answer.
        Destination = 6, "destination";
        /// Nothing claims it and the policy's default is pass.
        Default = 7, "default";
    }
}

/// Why a packet was judged as it was. The verdict follows from it, so the two can't contradict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It may pass.
    Pass(PassReason),
    /// It may not.
    Drop(DropReason),
}

/// Room for drop reasons in a counter block; see [`CounterBlock`](crate::counter::CounterBlock).
pub const DROP_REASONS: usize = 16;

const _: () = assert!(DropReason::ALL.len() <= DROP_REASONS, "a drop reason has no counter");
const _: () =
    assert!(DROP_REASONS.is_power_of_two(), "the kernel masks the code of a reason with DROP_REASONS - 1");
