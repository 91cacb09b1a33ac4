// Package restapi connects the hub to any system with a REST interface that speaks JSON, by configuration alone.
//
// It owns the exchange over HTTP and the judgement of its answers: work orders are read from a list, each fact becomes one request,
// and expressions say what an answer means. It promises that a request is made before it is sent and that the same bytes are
// sent when it is sent again, that nothing is taken for posted or for absent but by an answer of the system's own form, that
// numbers are written and read digit by digit, and that credentials go to no other host. It never guesses: what no expression
// recognises leaves a posting in doubt.
//
// # How once is once
//
// Prepare looks the fact up by its key, makes the request and gives it to the hub as the intent. Post sends it. An answer counts
// as posted only when success is true and the answer is JSON or empty; as refused only when one of the errors is true; everything
// else is in doubt: a lost answer, a web page, a status that nobody thought of. What is in doubt is looked up, never sent again
// blindly.
//
// # What the configuration must say, because nobody else can
//
//	is a look-up that finds nothing a proof?   by absent_after: so long after the request was sent at the latest. Without it
//	                                           nothing is proved, and a person decides
//	does the system take a key only once?      once: true. It then refuses the second request, which an error of class
//	                                           duplicate recognises, or answers it as it answered the first
//	may a request be sent again unchanged?     idempotency: the system replays the answer to a header's value so long. A doubt
//	                                           that the look-up cannot end is ended by that
//	until when is a request taken?             valid_for gives valid_until to the request; look-ups may compare with it
//	how much was there before?                 mark is read before a request is made; look-ups may compare with it, where a
//	                                           system shows sums only
//
// # What it can prove and what it cannot
//
// As much as the look-up and verify can see, and nothing more. Without a look-up every lost answer goes to a person; without
// verify and look-up a posting is verified by nothing but the system's word.
//
// # Lists of orders
//
// A list comes in pages: by a link in the answer, by a cursor in the answer, by an offset, or by the changed value of the last
// order. By an offset each page begins with the last order of the page before, and the list is begun anew when that is another
// one: something moved meanwhile. Page numbers are not offered, because they cannot be checked like that. Each reading begins
// the overlap before the newest change seen, for changes that are committed late. An order that cannot be read is reported and
// stops no neighbour.
//
// Redirects are not followed: an answer that sends elsewhere is no answer. Addresses of next pages must be of the same host.
package restapi
