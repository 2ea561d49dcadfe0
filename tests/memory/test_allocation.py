"""torch's messages about memory, in every form that they have had."""

from __future__ import annotations

import pytest
import torch

from backend.memory.allocation import failed_allocation

GIB, MIB = 1 << 30, 1 << 20
NEW = (
    "CUDA out of memory. Tried to allocate 3.91 GiB. GPU 1 has a total capacity of 22.99 GiB of "
    "which 1.20 GiB is free. {processes}Of the allocated memory {allocated} is allocated by "
    "PyTorch, and {gaps} is reserved by PyTorch but unallocated. If reserved but unallocated "
    "memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
    "fragmentation.  See documentation for Memory Management"
)


def new(processes: str = "", allocated: str = "20.00 GiB", gaps: str = "200.00 MiB"):
    return failed_allocation(NEW.format(processes=processes, allocated=allocated, gaps=gaps))


def test_the_form_of_today():
    found = new("Including non-PyTorch memory, this process has 21.70 GiB memory in use. ")
    assert (found.asked, found.device) == (round(3.91 * GIB), 1)
    assert (found.total, found.free) == (round(22.99 * GIB), round(1.2 * GIB))
    assert (found.allocated, found.unallocated) == (20 * GIB, 200 * MIB)
    assert found.process == round(21.7 * GIB)
    assert found.others == ()
    assert found.missing == round(3.91 * GIB) - round(1.2 * GIB)
    assert found.shortage == "need"


def test_the_form_with_brackets():
    found = failed_allocation(
        "RuntimeError: CUDA out of memory. Tried to allocate 16.00 MiB (GPU 0; 3.94 GiB total "
        "capacity; 2.98 GiB already allocated; 14.25 MiB free; 3.00 GiB reserved in total by "
        "PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb"
    )
    assert (found.asked, found.free) == (16 * MIB, round(14.25 * MIB))
    assert found.unallocated == round(3.00 * GIB) - round(2.98 * GIB)
    assert found.total == round(3.94 * GIB)


def test_the_form_with_the_misprint():
    found = failed_allocation(
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a "
        "total capacty of 6.00 GiB of which 0 bytes is free. Of the allocated memory 2.93 GiB is "
        "allocated by PyTorch, and 2.30 GiB is reserved by PyTorch but unallocated."
    )
    assert (found.total, found.free) == (6 * GIB, 0)
    assert found.shortage == "fragmentation"


def test_other_processes_are_to_blame_when_they_hold_what_is_missing():
    words = "Process 881 has 9.50 GiB memory in use. "
    ours = "Including non-PyTorch memory, this process has 12.10 GiB memory in use. "
    found = new(words + ours, allocated="11.50 GiB")
    assert found.others == ((881, round(9.5 * GIB)),)
    assert found.shortage == "others"


def test_a_process_that_is_not_named_as_ours_is_found_by_its_size():
    found = new(
        "Process 7 has 5.00 GiB memory in use. Process 9 has 20.70 GiB memory in use. ",
        allocated="20.00 GiB",
    )
    assert [pid for pid, _ in found.others] == [7]


def test_a_driver_that_does_not_know_tells_nothing():
    found = new("Including non-PyTorch memory, this process has 17179869184.00 GiB memory in use. ")
    assert found.process is None


def test_a_limited_run_lacks_what_its_limit_leaves():
    found = failed_allocation(
        "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 139.81 GiB "
        "of which 115.60 GiB is free. Including non-PyTorch memory, this process has 23.02 GiB "
        "memory in use. 23.00 GiB allowed; Of the allocated memory 21.90 GiB is allocated by "
        "PyTorch, and 598.72 MiB is reserved by PyTorch but unallocated."
    )
    assert found.limit == 23 * GIB
    assert found.missing == pytest.approx(1.95 * GIB - (23 - 21.9) * GIB + 598.72 * MIB, rel=1e-6)
    assert found.shortage == "need"


def test_main_memory_as_torch_and_numpy_say_it():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    found = failed_allocation(str(error.value))
    assert (found.asked, found.on_device) == (1 << 60, False)
    numpy = "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9.00 GiB for an array"
    assert failed_allocation(numpy).asked == 9 * GIB


def test_other_errors_are_none_of_its_business():
    assert failed_allocation("RuntimeError: CUDA error: out of memory") is None
