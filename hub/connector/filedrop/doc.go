// Package filedrop connects the hub to any system that exchanges files in folders of this computer, a share or an SFTP server, by
// configuration alone.
//
// It owns the writing of one file for each fact, the reading of the answers to them, and the taking of files with work orders. It
// promises that a file appears whole under its name or not at all, that a fact has never more than one file which the other side may
// still book, that nothing is taken for posted but by an answer, or by the hand-over where the configuration calls that the effect,
// and that no file with orders is taken before it is whole. It never changes or deletes a file that was handed over.
//
// # How once is once
//
// A file's name holds its reference: the fact's key, with -2, -3, ... behind it for files after one that was refused. The file is
// written beside its place under another name and brought down to the disk, a copy is kept as REFERENCE.pending in the folder sent,
// the file is renamed to its name, and the copy loses its .pending. So after a crash at any step, and after a lost answer of an SFTP
// server, the two names tell whether it was handed over, even where the other side has taken it away. It is as well known to be
// handed over when a file with its reference lies in the folder, or in one of those where the other side puts what it took.
//
// The folder sent must be backed up with the hub, and must not be emptied. Names ending in .tmp belong to this connector; one of them,
// linekeeper.tmp, stays in the folder, so that a share that is not mounted is not taken for it. Only one hub may use the folders.
//
// # What it can prove and what it cannot
//
//	was the file handed over?         yes
//	was it booked?                    only if the other side answers, by a file whose name holds the reference. Without one it is
//	                                  "not yet", and after within a person decides; or it is posted then, where handover_is_effect
//	was it refused?                   only if the other side answers
//	what exactly was booked?          what the answer says, where equal names it; otherwise the file is compared with the fact
//	was it booked twice?              no: the other side must book a reference once
//	did the server's disk keep it?    only where the server has fsync@openssh.com
//
// Facts that take others back have no file; the hub is not offered to.
//
// # Work orders
//
// Files are JSON, CSV (a line is an order) or B2MML schedules (V0401, V0600, V0700). They are whole when they appear by a rename, when
// their size and time have stayed the same, or when another file marks them. The records are kept in the folder state, from which the
// hub reads them; then the file goes to the folder archive. One that cannot be read goes to the folder errors, with a file beside it
// that says why. One with the content of a file before is a repetition and changes nothing, so exports must carry a time or a number.
package filedrop
