// What the shared library exports; everything else is hidden (see runtime/api/conclave.map).
#pragma once

#define CONCLAVE_API __attribute__((visibility("default")))
