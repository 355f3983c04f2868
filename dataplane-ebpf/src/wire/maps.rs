//! The maps: names, and the layout that a pinned one must have before a new object may be loaded over it.

/// What every packet meets ([`super::shared`]); also the symbol's name. The number is of the form that tables have ([`super::table`]): one
/// more whenever an older program would read a new table wrongly, so that neither release takes the other's for its own.
pub const SHARED: &str = "SHARED_4";
/// The section that [`SHARED`] is alone in, which is the map's name in the object.
pub const SHARED_SECTION: &str = ".bss";
/// Outer map: generation -> the other chunks of its table.
pub const TABLES: &str = "TABLES";
/// Outer map: generation -> listeners.
pub const LISTENERS: &str = "LISTENERS";
/// Packets by reason, and what is drawn of samples, per CPU ([`super::here`]).
pub const HERE: &str = "HERE";
/// Packets by a rule and its reason, per CPU; a cell says which counter.
pub const RULES: &str = "RULES";
/// Who is sending, of sampled packets.
pub const SENDERS: &str = "SENDERS";
/// Packets that samples stood for, per CPU.
pub const SAMPLED: &str = "SAMPLED";
/// Where an entry of [`SENDERS`] is put together, per CPU.
pub const ENTRY: &str = "ENTRY";
/// A packet that more is to be done with than to judge it, per CPU.
pub const JUDGED: &str = "JUDGED";
/// What is watched.
pub const WATCHES: &str = "WATCHES";
/// What watches with a limit have taken.
pub const CAPTURED: &str = "CAPTURED";
/// What watches were about, and what of it was lost, per CPU.
pub const SEEN: &str = "SEEN";
/// The ring of records.
pub const FLOWS: &str = "FLOWS";
/// Where a record is put together, per CPU.
pub const RECORD: &str = "RECORD";
/// The worker threads' listening sockets.
pub const SOCKETS: &str = "SOCKETS";
/// CPU -> thread.
pub const THREADS: &str = "THREADS";
/// How a thread is chosen.
pub const STEERING: &str = "STEERING";
/// Outer map of one place: where listeners accept on prefixes or any port; empty where none does.
pub const RANGES: &str = "RANGES";
/// Budgets, by place.
pub const BUDGETS: &str = "BUDGETS";
/// Port -> place of its budget of SYNs, 0 where it has none.
pub const BUDGET_PORTS: &str = "BUDGET_PORTS";
/// Port -> its bucket of SYNs.
pub const PORT_BUCKETS: &str = "PORT_BUCKETS";
/// Source -> its bucket of SYNs.
pub const SYN_BUCKETS: &str = "SYN_BUCKETS";
/// Source -> its bucket of UDP packets.
pub const UDP_BUCKETS: &str = "UDP_BUCKETS";
/// Source -> its bucket of new connections.
pub const CONNECTION_BUCKETS: &str = "CONNECTION_BUCKETS";
/// Source that sent back a SYN cookie -> its bucket of SYNs.
pub const KNOWN: &str = "KNOWN";
/// Sources that were seen once.
pub const DOORS: &str = "DOORS";
/// SYNs of all sources.
pub const PRESSURE: &str = "PRESSURE";
/// The programs that send and read SYN cookies, where the kernel has what they need.
pub const TAIL: &str = "TAIL";

/// The program on interfaces.
pub const FILTER: &str = "sallyport_xdp";
/// The program that the one on interfaces ends in when a packet is about a budget.
pub const SPEND: &str = "sallyport_budget";
/// The program that the one on interfaces ends in when a SYN is answered with a cookie.
pub const ANSWER: &str = "sallyport_answer";
/// The program that it ends in when a segment may bring one back.
pub const LEARN: &str = "sallyport_learn";
/// The program on the network namespace.
pub const STEER: &str = "sallyport_steer";
