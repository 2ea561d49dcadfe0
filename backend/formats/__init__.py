"""File formats of the kit, of Data-Juicer and of the benchmarks: read, check, convert, write."""
