//! How a stream of ZFS is laid out: records of one length each, the first of them a header.
//!
//! Owns: where the fields of a record's beginning lie. Source: `dmu_replay_record_t` in `sys/zfs_ioctl.h` of OpenZFS 2.3; what
//! features and flags mean is said there and in `man/man8/zfs-send.8`. Numbers are in the sender's byte order.

/// Bytes of a record, without what follows it.
pub const RECORD: usize = 312;

/// The number by which a header is known.
pub const MAGIC: u64 = 0x2_F5BA_CBAC;

/// The kind of a header.
pub const BEGIN: u32 = 0;
/// The kind of what a stream, and a package of streams, ends with.
pub const END: u32 = 5;

/// A header that leads in one snapshot ([`Record::leads_in`]).
pub const ONE: u64 = 1;
/// One that leads in a package of streams.
pub const PACKAGE: u64 = 2;

/// The snapshot of a file system ([`Record::of`]).
pub const FILE_SYSTEM: u32 = 2;
/// Of a volume.
pub const VOLUME: u32 = 3;

/// Feature: blocks that are embedded in the pointers to them.
pub const EMBEDDED: u64 = 1 << 16;
/// Feature: blocks are as they lie on the sender's disks.
pub const RAW: u64 = 1 << 24;

/// Flag: the base is the origin of the dataset.
pub const OF_CLONE: u32 = 1;

/// The byte order of a stream's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Lowest byte first.
    Little,
    /// Highest byte first.
    Big,
}

impl Order {
    /// Both, this machine's own first.
    pub const ALL: [Order; 2] =
        if cfg!(target_endian = "little") { [Order::Little, Order::Big] } else { [Order::Big, Order::Little] };
    /// This machine's own.
    pub const OWN: Order = Order::ALL[0];
}

/// A record. The fields of a header are whatever lies there in records of other kinds.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8; RECORD],
    order: Order,
}

impl<'a> Record<'a> {
    /// Read in that order.
    pub fn new(bytes: &'a [u8; RECORD], order: Order) -> Self {
        Record { bytes, order }
    }

    /// A header, in the order that it is written in; `None` where it is none.
    pub fn header(bytes: &'a [u8; RECORD]) -> Option<Self> {
        let mut orders = Order::ALL.into_iter().map(|order| Record { bytes, order });
        orders.find(|record| record.kind() == BEGIN && record.u64(8) == MAGIC)
    }

    /// The byte order.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Four bytes at a place below [`RECORD`] - 4.
    pub fn u32(&self, at: usize) -> u32 {
        let four = self.array(at);
        if self.order == Order::Little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    }

    /// Eight bytes at a place below [`RECORD`] - 8.
    pub fn u64(&self, at: usize) -> u64 {
        let eight = self.array(at);
        if self.order == Order::Little { u64::from_le_bytes(eight) } else { u64::from_be_bytes(eight) }
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }

    /// One byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// The kind.
    pub fn kind(&self) -> u32 {
        self.u32(0)
    }

    /// Of a header: bytes that follow it.
    pub fn payload(&self) -> u32 {
        self.u32(4)
    }

    /// Of a header: [`ONE`] or [`PACKAGE`].
    pub fn leads_in(&self) -> u64 {
        self.u64(16) & 3
    }

    /// Of a header: what a receiver has to know, a bit for each.
    pub fn features(&self) -> u64 {
        self.u64(16) >> 2
    }

    /// Of a header: [`FILE_SYSTEM`], [`VOLUME`], or something else.
    pub fn of(&self) -> u32 {
        self.u32(32)
    }

    /// Of a header: more of what it is, a bit for each.
    pub fn flags(&self) -> u32 {
        self.u32(36)
    }

    /// Of a header: the guid of the snapshot.
    pub fn to(&self) -> u64 {
        self.u64(40)
    }

    /// Of a header: the guid of its base; 0 where it has none.
    pub fn from(&self) -> u64 {
        self.u64(48)
    }

    /// Of a header: what the sender calls the snapshot, its dataset included.
    pub fn name(&self) -> &'a [u8] {
        self.bytes[56..].split(|byte| *byte == 0).next().unwrap_or_default()
    }
}
