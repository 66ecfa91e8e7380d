from libc.stdint cimport int64_t


cdef class Chain:
    cdef public bint live
    cdef public bint chained
    cdef public int64_t first
    cdef public int64_t last
    cdef public int64_t due
