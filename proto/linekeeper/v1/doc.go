// Package linekeeperv1 is the contract between plant agents and the hub: the uplink stream and the canonical facts and
// objects on it, generated from the .proto files beside it.
//
// It promises that a field never changes its meaning and that a number is never used twice: contract.txtpb holds what has
// been published, and the build refuses a change that breaks it. It never holds logic.
package linekeeperv1
