//! Addresses as integers of their family's width.

/// An address as an integer.
pub(super) trait Bits: Copy + Ord + 'static {
    /// The lowest address.
    const LOWEST: Self;
    /// The highest.
    const HIGHEST: Self;
    /// The last address of the prefix that starts here.
    fn last_of(self, length: u8) -> Self;
    /// The address behind it; none behind the highest.
    fn next(self) -> Option<Self>;
    /// The address before it; none before the lowest.
    fn previous(self) -> Option<Self>;
    /// The first address of a bucket: `base` with `bucket` in the 16 bits at `shift`.
    fn bucket_first(base: Self, bucket: u16, shift: u32) -> Self;
    /// The last address that differs from this one in the lowest `shift` bits only.
    fn bucket_last(self, shift: u32) -> Self;
}

macro_rules! bits {
    ($t:ty) => {
        impl Bits for $t {
            const LOWEST: Self = Self::MIN;
            const HIGHEST: Self = Self::MAX;
            fn last_of(self, length: u8) -> Self {
                // A shift by the full width (length 32 of 32) is no shift in Rust: it leaves no host bits.
                self | Self::MAX.checked_shr(u32::from(length)).unwrap_or(0)
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
            fn bucket_first(base: Self, bucket: u16, shift: u32) -> Self {
                base | (Self::from(bucket) << shift)
            }
            fn bucket_last(self, shift: u32) -> Self {
                self | ((1 << shift) - 1)
            }
        }
    };
}

bits!(u32);
bits!(u128);
