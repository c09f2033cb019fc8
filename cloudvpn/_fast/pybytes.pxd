# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes objects that are filled in place before Python sees them: owned pointers, so that no reference count moves."""

from cpython.object cimport PyObject

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* start, Py_ssize_t size)
    char* bytes_start "PyBytes_AS_STRING"(PyObject* data) noexcept
    int resize_bytes "_PyBytes_Resize"(PyObject** data, Py_ssize_t size) noexcept    # below 0: MemoryError is set
    void decref "Py_XDECREF"(PyObject* data) noexcept
    void PyErr_Clear() noexcept
