//! The bridge to aya: which types may be copied between the kernel and the agent byte by byte.
//! The one file of this crate with `unsafe`.
#![cfg_attr(feature = "user", expect(unsafe_code, reason = "aya::Pod is an unsafe trait"))]

#[cfg(feature = "user")]
mod bridge {
    /// A type with `IntoBytes` has no padding and one with `FromBytes` no invalid bit pattern (zerocopy
    /// proves both at compile time), which is more than `Pod` asks.
    macro_rules! pod {
        ($($t:ty),+ $(,)?) => {$(
            const _: () = {
                const fn plain<T: Copy + zerocopy::FromBytes + zerocopy::IntoBytes>() {}
                plain::<$t>();
            };
            // SAFETY: Copy, 'static, any bit pattern is valid, no padding: proved above.
            unsafe impl aya::Pod for $t {}
        )+};
    }

    pod!(
        crate::Address,
        crate::RuleSet,
        crate::connection::CallerKey,
        crate::connection::ConnectionCount,
        crate::counter::CounterBlock,
        crate::dns::Answered,
        crate::dns::LearnCount,
        crate::dns::LearntName,
        crate::dns::NameBudget,
        crate::event::Event,
        crate::event::EventBucket,
        crate::limit::LimitEntry,
        crate::owner::OwnerKey,
        crate::owner::OwnerRules,
        crate::settings::Settings,
        crate::state::FlowKey,
        crate::state::FlowState,
        crate::state::FragmentKey,
        crate::state::FragmentState,
        crate::state::InterfaceSlot,
        crate::state::NameSlot,
        crate::tables::AddressClass,
        crate::tables::Bucket,
        crate::tables::GenerationStamp,
        crate::tables::Range4,
        crate::tables::RuleInfo,
    );
}
#[cfg(not(feature = "user"))]
const _: () = ();
