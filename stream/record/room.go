package record

// Room returns how many bytes of a medium of that many must be free for a
// recording to begin.
func Room(total uint64) uint64 { return uint64(roomToBegin * float64(reserve(total))) }
