package buffer

import "os"

// CheckFile walks a bbolt file of anybody's by reading it and returns what is wrong with its pages. Only a file that passes
// may be walked by bbolt itself: a damaged one can keep bbolt busy for ever, or end the process from a goroutine of its own.
// It takes the newest meta page that is whole, as bbolt does, and does not look at values. Whoever has the file open for
// writing must not write meanwhile.
func CheckFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return walkPages(f)
}
