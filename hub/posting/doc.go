// Package posting takes facts into the books of an outside system, each once.
//
// It owns the planner, which reads new facts in their order and decides what each of them means, and the engine, a small
// state machine for each fact that has an effect outside. It promises that a fact takes effect at most once while the outside
// system can be asked, and that a person is asked where it cannot; that postings of one order are made in the order of their
// facts, one at a time, and those of different orders side by side; that a fact which is refused is parked with its reason
// and the next step, and never stops its neighbours; and that whatever a crash interrupts is taken up where the store says.
// It never tries again blindly, never guesses, never drops a fact, and speaks no outside system's language.
//
// # States
//
//	            +--------- absent ----------+
//	            v                           |
//	planned -> due -> sending -> in_doubt --+--> parked (cannot tell)
//	   |        ^        |          |
//	   |        |        +-> posted <- found
//	   |     retryable   |      |
//	   |        +--------+      +-> verified
//	   |                 |      +-> parked (mismatch)
//	   |                 +-> parked (rejected)
//	   +-> parked (waiting for its order, or unusable) -> due
//	   +-> not_posted (policy, nothing to post, range known already)
//	parked -> due, in_doubt or posted (replayed), settled (a person's decision)
//
// A fact that takes another back (see reverse.go) is parked until that is in the books, and then goes the same way.
//
// "sending" is stored, with what Lookup will need, before the outside system is asked; a hub that starts and finds it takes
// it for in doubt. In doubt is only ever left by looking up; where that finds that the system had taken the request and
// refused it later, the posting is dealt with as rejected. Retries wait with full jitter and end after a day; a system that
// cannot be reached is tried for ever.
//
// # Order
//
// The postings of one order in one system are a lane. A lane does one thing at a time: first what is in doubt, then what is
// to be read back, then the next that is due. Where the connector reads several back by one call, those that are due for it let others of
// the lane be posted for a second, and go together (see readback.go). What is parked lets others pass, except those that finish the order: these wait
// until nothing else of it is open, and say what they wait for. Facts that waited for their order to come go before those that
// came after it.
//
// A finish that names an operation closes the order only when that is its last one, and then waits for the others too: see operation.go.
//
// # Counters and quantities
//
// A confirmation with a counter range counts only what the hub does not know yet of that counter (see trim.go). Quantities
// are rounded half-even to what the outside system keeps, and what is left over goes to the next posting of the same thing.
//
// # One document of several facts
//
// Where a policy collects, a fact that becomes due joins the open aggregate of its line: the same order, operation, item, unit, lot,
// shift, person, machine and date for the books. It is due with code "collecting" and does nothing. The aggregate is sealed after a
// time, from a quantity on, by a final confirmation, and when the order's end, or that of an operation which is posted, is planned, in that transaction; what comes after the
// end goes alone. Sealing sums the members' amounts, each rounded as always, and stores the aggregate's key, made of its members'
// keys: from then on nothing of it changes. A sealed aggregate of one member is none.
//
// A sealed aggregate is one posting. Whatever happens to it, an intent, an outcome, a person's decision, is stored for all members in
// one transaction: each has the same state, its own amounts, its own life and receipts. So the lane may take any member for
// the whole: prepareCall puts the first one's row, which keeps the intent, and the sum under the aggregate's key in its place. Look-up
// and read-back go by that key; the tally, the counters and the order's end know members only and need to know nothing of it.
//
// What is said in other words (see words.go) or was corrected goes alone. An aggregate of which certainly nothing is in the books is
// taken apart when one of its members is corrected or said anew: that is the only way in which it ends early.
//
// A member that comes again is known by its own key. What takes a member back while that is collected joins it, and where all of an
// aggregate cancels out, nothing is posted. Later it waits for the document, then takes back the member's share as a part of it.
//
// # A part is taken back
//
// A fact may take back less than another has, also in several parts (see part.go). Material goes the other way by a movement of its own. Of
// a confirmation most systems take back only the whole: its document is taken back, and what is left is posted as one document of the
// original and of what takes the part back, as if they had been collected. What a mapping converted or a person corrected, and a
// system that takes back no document by its number, are left to a person. What is left is never taken apart.
package posting
