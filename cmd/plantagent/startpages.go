//go:build !linux

package main

// forgetStart does nothing where the system decides alone which pages of a program stay.
func forgetStart() {}
