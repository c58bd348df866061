"""Looks a device over: what it has, what of that works, what it would choose and why. Changes nothing, mends nothing.

Whatever a check meets is a finding, never an exception. What may crash a process is tried in one of its own.
"""
