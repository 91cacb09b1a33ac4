// Package translate turns what sources said into facts, by rules.
//
// It owns the rules (counter, record, state, reading), the state they need between batches (last counter values, open
// remainders, which order runs where, the quantity ledger of the edge, the keys seen lately), and the judgement of every bad
// input. It promises that
//
//   - it is a function of (rules, state, batch, time): the same call on the same state gives the same facts with the same
//     keys, so that a batch whose transaction was lost can be delivered again without loss and without a double;
//   - for every (order, item, kind): counted = stored in facts + open remainder, exactly, in decimals;
//   - a signal that cannot become a fact is quarantined with a stable code, the item at fault, a reason and a next step, and
//     never stops its neighbours;
//   - a record that comes again with the key it had before (a redelivery, an overlapping query) makes no second fact.
//
// It never looks at a clock, draws a random number of its own, or touches a file or the network: time and random keys are
// handed in, state is read and written through State, in the transaction that makes the batch durable.
//
// # Counters
//
// A counter's key is its position (counter, plant, source, tag, epoch, counter-from, counter-to): an agent restored from a copy
// may close another range at the same value, which is another fact, and the hub takes from it what it knows. Within an epoch the position only grows:
// a rollover adds the modulus, so "to" of a rolled-over counter is larger than what the PLC shows. An epoch begins when
// the agent sees the counter for the first time and at each reset; its name is "<time of the first>-<4 random
// characters>.<number of the reset>", and a later epoch of a counter has a greater name (the number counts as a number).
//
// Values are judged like this, and each line but the first three is shown as an exception:
//
//   - larger: the difference is counted. equal: nothing. first ever: the baseline, counted only with start_from_zero.
//   - smaller, and (modulus - last + new) is possible within max_per_second x elapsed (without max_per_second: at most half
//     of the modulus): rollover, counted exactly.
//   - smaller, with a time of the source before that of the last value: an old value that comes again. It is left out.
//   - the boot mark changed, or smaller and the new value itself is possible since the last one (without max_per_second: at
//     most half of the last value): reset. The open remainder is closed in the old epoch; "restart" counts the new value from
//     zero, "hold" takes it as a baseline and leaves the question to a person.
//   - smaller, inside the open remainder: a correction (an operator took parts off the counter). It is taken from the open
//     remainder.
//   - nearly once round (more than 15/16 of the modulus) without max_per_second: the same small step back, over the rollover.
//   - smaller than what was already confirmed: ambiguous. Nothing is counted until the counter passes its old value.
//   - larger by more than max_per_second allows: not counted until the time that has passed makes it possible.
//   - one step after a reset the counter is back at or above its old value, which max_per_second rules out from zero: the
//     reset was a misread. The old epoch goes on.
//
// Values whose quality is not Good are never counted; they travel as readings, and the episode is shown once.
//
// # Confirmations
//
// Counts stay open until a quantity, a time, the end or change of the order, or a change of what they are booked on. Counts
// while no order runs are confirmed without an order number ("hold"), or kept for the next order ("assign_next").
package translate
