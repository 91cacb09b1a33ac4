// Package e2e tests the whole line: the real binaries, real brokers, OPC UA servers, databases and a real ERP, and a network
// that is cut.
//
// It owns no product code. It promises that what a test says of quantities was read from the ERP's own database and from
// the machines' own counts. It never puts a fake between them and the product.
package e2e
