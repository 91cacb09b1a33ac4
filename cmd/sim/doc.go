// Package sim proves by simulation that nothing is lost and nothing is doubled.
//
// It owns a plant, an ERP, a network and disks that exist only in memory or on a scratch disk, and runs the real agents and
// the real hub on them in one process, in the fake time of testing/synctest. One seed decides everything that happens: cuts,
// half-open lines, crashes at the worst moment, restored copies, clones, new hardware, lost and late replies of the ERP,
// clocks that jump. After each seed everything is healed, and the quantities of the machines, the agents' ledgers, the hub
// and the ERP's documents must be equal, to the piece.
//
// The order in which the Go scheduler runs goroutines at one instant is not the seed's: a seed that fails once may have to be
// run a few times to fail again. Its log of events is kept.
//
// The package holds tests only. It promises that a failed run names its seed, and takes it back from SIM_SEED; that SIM_SEEDS
// says how many seeds run, and SIM_KEEP where the logs of failing ones are kept. It never speaks to another machine.
package sim
