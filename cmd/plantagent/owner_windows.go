package main

// giveBack does nothing: on Windows what is made in a folder has the folder's rights.
func giveBack(string) {}
