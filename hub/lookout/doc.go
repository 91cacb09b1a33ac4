// Package lookout raises alarms about what is silent: an agent that is not heard of or says that it is not well, a work order that leads
// to nobody, facts whose order does not come.
//
// It owns these alarms, from their beginning to their end. It promises:
//
//   - Time is counted while the hub works, by a clock that nobody sets: neither a hub that was down or frozen nor a clock that is set
//     makes an alarm.
//   - What is told already is not told again after a start of the hub. What comes and goes is one alarm.
//   - What fails together is raised together, so that a cut line is one message.
//   - An alarm ends by itself, with a note, when its cause has been away for a minute. One that a person has closed does not come again
//     as long as the same cause lasts.
//   - An agent that never connected, or is not configured any more, is not missed.
//
// It never tells anybody, and changes nothing but its alarms.
package lookout
