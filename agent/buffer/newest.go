package buffer

// Newest returns the last n records that are still in the buffer's files, oldest first, the acknowledged among them: a file goes
// when all of it is acknowledged and newer records stand in another. It is for people who look; a damaged file is left to Read.
func (b *Buffer) Newest(n int) []Entry {
	b.mu.Lock()
	if b.closed || n <= 0 {
		b.mu.Unlock()
		return nil
	}
	after := b.info.Last - min(b.info.Last, uint64(n))
	ranges := b.ranges(after)
	b.mu.Unlock()
	entries, _, err := b.readRanges(ranges, after, n, newestBytes)
	if err != nil {
		return nil
	}
	return entries
}

// newestBytes bounds what Newest reads.
const newestBytes = 16 << 20
