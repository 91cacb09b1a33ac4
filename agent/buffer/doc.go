// Package buffer is the agent's durable queue: records in order, and with them the small keyed state that they came from.
//
// It owns one folder. In it lie segments, each a bbolt file of bounded size. Only the newest is written; an older one is
// deleted whole once the hub holds all of its records, which gives the disk back at once. The newest segment carries all
// state, so one transaction covers records, cursors, state and quarantine.
//
// It promises:
//   - after Commit returned nil, everything its function did survives kill -9 and power loss (as far as the disk tells the
//     truth about a sync); after an error nothing of it is there;
//   - records are read in the order of their sequence numbers, byte for byte as they were appended, until they are
//     acknowledged;
//   - a damaged segment never stops the others: it is set aside, kept under another name, what is whole in it stays in the
//     queue, and the sequence numbers of the rest are reported;
//   - a full buffer holds its callers (Block) or gives up its oldest records and counts them (DropOldest).
//
// It never looks into a record, never opens a network connection and never deletes a damaged file.
//
// # On disk
//
//	lock                                       held while a process has the folder open; names the newest segment,
//	                                           and after a full disk the last record that the hub holds
//	SSSSSSSSSSSS-FFFFFFFFFFFFFFFFFFFF.segment  segment number and the sequence number of its first record, decimal
//	*.segment.new                              a segment being made; worthless, removed at the next start
//	*.segment.damaged                          a segment set aside
//
// A segment has five buckets. "meta" holds "format" (which must stay readable for ever), "first", "proof" and "kept" (see
// below), "acked" and "flushed". "info" holds generation, counts, damage and what is known of older segments. "records" maps
// the last sequence number of a block, big-endian, to the block: 4 to 32 KB of records with their time, running totals,
// changed state and a checksum. "state" maps keys to values, each with a checksum. "quarantine" maps ids to inputs that could
// not be used.
//
// A small change of state goes into a block of the records committed with it, and to its own page only now and then:
// "flushed" says up to which record the bucket "state" has it all. A start reads that bucket and then the later blocks.
//
// Open and every failed commit start a new segment, in which the state is written first; an existing file is not written
// to again. The records of a segment end where the next one begins, whatever else the file may hold, so what a failed
// commit left behind can not come back.
//
// A commit costs one sync, not bbolt's two. The proof, a sum over all content, shows at the next start whether the last
// commit is there as a whole; if a power cut left it in part, bbolt's other meta page is taken, that of the commit before.
//
// # Damage
//
// A segment that can not be read is renamed and stays where it was in the order. A process of its own (Config.Salvager) looks
// for blocks at every byte of the file: a block carries its numbers and a checksum, so it needs no page around it. Until it
// is known which are left nothing behind them is read, because an acknowledgement covers all before it; commits go on. Then
// the records are read from the file that was set aside, for as long as the hub does not hold them.
//
// If it was the newest segment, its state is taken when "kept" proves it whole and no later commit can have been; else the
// newest one that is whole, of an earlier commit or segment, and a new generation says that time went back.
package buffer
