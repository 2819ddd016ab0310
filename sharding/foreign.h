// Formats, codecs and indexers may be a plugin's. What they throw becomes an Error that names them,
// and what they say is not believed before it is used.
#pragma once
#include <exception>
#include <new>
#include <string>

#include "quant/codec.h"
#include "runtime/base/error.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::sharding {

/// f(), of the plugin's part that `name_of()` names.
template <class NameOf, class F>
decltype(auto) call_foreign(NameOf&& name_of, F&& f) {
    try {
        return f();
    } catch (const Error&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& e) {
        throw Error(ErrorCode::kInternal, name_of() + " throws: " + e.what());
    } catch (...) {
        throw Error(ErrorCode::kInternal, name_of() + " throws something that is no exception");
    }
}

/// Throws kInternal, naming format and tensor, unless `matrix` is what a format may say of
/// `source`: pieces inside tensors that are there, numbers that fit each other.
void check_matrix(const Checkpoint& checkpoint, const quant::StoredMatrix& matrix,
                  const quant::MatrixSource& source, const std::string& format);

/// Throws kInternal, naming codec and tensor, unless rows x cols of `matrix`, whose columns are
/// grouped so (null: not scaled), can be read from the tile. That it points to memory of its own is
/// believed.
void check_tile(const quant::CodeTile& tile, const quant::StoredMatrix& matrix,
                const quant::Grouping* groups, Interval rows, Interval cols);

}  // namespace conclave::sharding
