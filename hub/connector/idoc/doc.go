// Package idoc connects the hub to SAP systems that speak IDocs as XML files in folders.
//
// It owns the translation of LOIPRO files into work orders, of facts into CONF and MBGMCR files, and the reading of ALEAUD
// files, in which SAP says what became of an IDoc. It promises that a fact always has the same IDoc number and the same
// content, that an IDoc is never put out a second time while SAP might still book the first, and that nothing is taken for
// posted but by SAP's own word. It never deletes or changes a file of SAP's.
//
// # How once is once
//
// The IDoc's number is made from the fact's key, and SERIAL is that key. A file is first written beside its place under another
// name, then a copy is kept in the folder "sent", then it is renamed into the folder "out": a copy without the other name means
// that it was handed over, whether SAP has taken the file away or not. Only one hub may use the folders.
//
// SAP does not refuse an IDoc with a number that it has had. What keeps it from a second one is the copy in "sent": it must be
// backed up with the hub, and must not be emptied.
//
// # What it can prove and what it cannot
//
//	was the IDoc handed over?                 yes, by the copy in "sent"
//	was it booked?                            only if SAP sends ALEAUD: status 53. Without one it is "not yet", and after
//	                                          answer_within a person decides
//	was it refused?                           status 68 (no further processing) only. An IDoc in error (51) can be processed
//	                                          again in SAP at any time: it is "not yet", with SAP's message
//	what exactly was booked?                  no: what is compared is the IDoc that was sent
//	did a confirmation's goods movement fail? no: SAP saves the confirmation (53) and keeps the movement in its error list
//
// Confirmations cannot be taken back by IDoc; the hub is not offered to.
//
// # What was read and what was not
//
// The segments and fields of LOIPRO were read in a published sample, those of MBGMCR and ALEAUD in published guides and texts.
// Assumed, and to be checked in each system: segment and fields of CONF, the record types, that a system's codes of status mean
// the usual, and that UEBTK beside UEBTO (the over-delivery tolerance, which the sample has) means that there is no limit. Their names are in the configuration where systems are known to differ.
package idoc
