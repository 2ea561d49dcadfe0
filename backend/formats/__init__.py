"""The file formats of the kit, of Data-Juicer and of the benchmarks: read, validate, convert, write."""
