// Package s4double is a stand-in for the parts of SAP S/4HANA that a plant talks to: an HTTP server with books of its own.
//
// It owns orders, stock, confirmations, material documents, reservations and the list of failed goods movements, and speaks
// the four OData V2 services as they are published: the names, lengths and scales of their fields, CSRF tokens that hang on
// a session, RequestID with RepeatabilityCreation, server paging, functions, errors with message class and number. It promises
// that every trap that the documents tell of can be switched on, and that without a trap it books exactly what it was told,
// as often as it was told: like the original it takes a second confirmation with the same external key. It is never part of
// the hub and keeps nothing on disk.
//
// # What is read and what is assumed
//
// Read in published metadata and samples: services, sets, functions and their parameters, field names, lengths and scales, the
// form of dates, times and errors, which fields carry an ETag, movement codes, that explicit goods movements replace the
// automatic ones, that a failed movement does not stop its confirmation, that completion is refused while one is open
// (CO/688), the headers of repeatable requests and the answer when they are outdated (/IWBEP/CM_COS/005).
//
// Assumed, and to be checked against a real system: the message numbers of locks, states and unknown objects; that a refused
// request is not kept as repeatable; how long the effect of a commit may stay invisible; that the list of stock has no ISO unit.
package s4double
