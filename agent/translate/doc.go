// Package translate turns what sources said into facts, by rules.
//
// It owns the rules (counter, weight, serial, record, state, reading), the state they need between batches (last counter values,
// open remainders, which order runs where, the last values of tags that rules look at, the quantity ledger of the edge, the keys
// seen lately), and the judgement of every bad input. It promises that
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
// Counts stay open until a quantity, a time, the end or change of the order, the end of the shift (on_shift_end), or a change of
// what they are booked on. Counts while no order runs are confirmed without an order number ("hold"), or kept for the next order
// ("assign_next"); those belong to the shift in which the order begins.
//
// What a count is booked on is asked at each count: work centre, order, operation, lot, reason, person and factor. Each is an
// expression over the counter's own message and the last good values of other tags (tags.x), or comes from the order that runs. An
// expression that fails leaves its part empty and is shown, but for the factor: without one above zero, steps wait in the counter.
//
// # Splits
//
// A step is divided at positions of the counter, never by rounding quantities, so that the parts add up to the step.
//
//   - hand_over says whose a step is when what it is booked on changed since the counter's last value: next (the default) gives
//     it to what holds at the new value, last to what held at the last one, by_time divides it in the proportion of the times (whole
//     steps of a counter that counts whole things; a change outside of the step's time counts at its ends). What comes for
//     an order that is over is confirmed at once.
//   - outputs make several counters of one tag, known to the hub as "tag#output", each with all steps, or with a share of them.
//     Shares are dealt out like cards, by what the counter shows and nothing else; the hub hears of an output's own steps
//     only, so that each is worth the same when it trims an overlap. A change of the shares begins a new epoch. A rule that gets
//     outputs, or loses them, goes on where its counter stood, when that moved within the last hour.
//
// # Weights
//
// A scale is a counter that the rule keeps itself: what went from the scale (came onto it) in all since the rule saw it first. With
// stable_for, a weight counts when it stood still so long; the last value of that time is taken. Values with a time before that of the last
// one are left out, so sources that may deliver a value again need a time (the source's, or occurred_at). An agent that went
// back in time counts on from its old weight, and the hub trims what it holds; was the scale filled in the lost time, that is
// shown (weight_gap) and counting begins anew. An agent that lost its data begins with the first weight that it sees.
//
// # Serial numbers
//
// A serial rule makes one fact of each number; its key is made of (plant, source, rule, number). A number that comes again is
// the same piece, whatever is said of it then. The agent remembers the last 16,384 keys of a source; of an older one the
// hub keeps the second fact aside as a conflict, and books nothing.
//
// # Shifts
//
// Each fact names the shift of its work centre's calendar, by the time at which it occurred, and the shift's date.
//
// # Pseudonyms
//
// Mask replaces what rules pseudonymise by the first 80 bits of HMAC-SHA256 under the plant's secret. It comes before all else: the
// rules themselves never see a badge, and so neither does anything that is made of what they saw.
//
// # Explanations and replays
//
// TranslateExplained says what became of each signal; it makes the same facts. What a translator was given can be recorded and given
// to another one (package recording), because there is nothing else that its facts depend on but the keys that it draws.
package translate
