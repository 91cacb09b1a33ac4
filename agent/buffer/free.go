package buffer

// FreeDisk is how many bytes an ordinary user may still write to the disk that a folder lies on.
func FreeDisk(dir string) (int64, error) { return freeDisk(dir) }
