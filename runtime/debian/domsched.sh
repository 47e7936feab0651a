#!/bin/sh
# Room for young objects from the start: growing it step by step is a tenth of a short command's time.
exec /usr/lib/domsched/node --min-semi-space-size=16 /usr/lib/domsched/dist/domsched.js "$@"
