"""The supervisor: starts, watches and restarts the processes of a run.

=================  ==========================================================================================
``supervisor``     the loop: claims the run, starts its children, watches them, takes all down in order
``folder``         the run folder: claimed by one supervisor only, filled with segments, cleared away
``child``          one child process: how it is started, its heartbeat, whether and when it is started again
``farewell``       what a worker that will not come back leaves unsaid, said for it in the stream
``demo``           the shipped configuration with emulated venues in place of the real ones
``report``         what a terminal shows when a run is up, and when it is down
=================  ==========================================================================================
"""
