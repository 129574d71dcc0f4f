// Shape inference: what onnxruntime learns about the shapes of outputs before a session runs. An exception here only
// means that a shape is not known; no message is shown.
#include <vector>

#include "operators.h"

namespace bnn {

namespace {

// A side of a shape: a number, or a name for any number, as in ("batch", 32, 32, 64). size is -1 if it is not known.
struct Side {
    int64_t size;
    std::string name;
};

bool known(const Side& side) { return side.size >= 0; }

// What onnxruntime knows about a node, and where the shapes of its outputs are written.
struct Context {
    const OrtApi* api;
    OrtShapeInferContext* context;

    // Returns the shape of an input. Raises Refused if its number of axes is not known, Error if it is not 4.
    std::vector<Side> input(size_t index) const {
        OrtTensorTypeAndShapeInfo* info = nullptr;  // the context frees it
        check(ort::ShapeInferContext_GetInputTypeShape(api, context, index, &info));
        size_t count = 0;
        check(ort::GetDimensionsCount(api, info, &count));
        if (count != 4) throw Error("not an image");
        int64_t sizes[4];
        const char* names[4] = {};
        check(ort::GetDimensions(api, info, sizes, 4));
        check(ort::GetSymbolicDimensions(api, info, names, 4));
        std::vector<Side> sides;
        for (int i = 0; i < 4; ++i) sides.push_back({sizes[i], names[i] ? names[i] : ""});
        return sides;
    }

    // Reads an attribute of `count` integers.
    void integers(const char* name, int64_t* values, size_t count) const {
        const OrtOpAttr* attribute = nullptr;
        check(ort::ShapeInferContext_GetAttribute(api, context, name, &attribute));
        size_t bytes = 0;
        check(ort::ReadOpAttr(api, attribute, ort::kInts, values, count * sizeof(int64_t), &bytes));
        if (bytes != count * sizeof(int64_t)) throw Error("another length");
    }

    // Writes the type and shape of an output.
    void output(size_t index, ort::Type type, const std::vector<Side>& sides) const {
        // A shape with a side that has neither number nor name must not be written, because onnxruntime takes all such
        // sides for equal.
        std::vector<int64_t> sizes;
        std::vector<const char*> names;
        for (const Side& side : sides) {
            if (!known(side) && side.name.empty()) return;
            sizes.push_back(known(side) ? side.size : -1);
            names.push_back(known(side) ? "" : side.name.c_str());
        }
        struct Owned {
            const OrtApi* api;
            OrtTensorTypeAndShapeInfo* info = nullptr;
            ~Owned() {
                if (info) ort::ReleaseTensorTypeAndShapeInfo(api, info);
            }
        } owned{api};
        check(ort::CreateTensorTypeAndShapeInfo(api, &owned.info));
        check(ort::SetTensorElementType(api, owned.info, type));
        check(ort::SetDimensions(api, owned.info, sizes.data(), sizes.size()));
        check(ort::SetSymbolicDimensions(api, owned.info, names.data(), names.size()));
        check(ort::ShapeInferContext_SetOutputTypeShape(api, context, index, owned.info));
    }
};

void infer(const Operator& op, const Context& context) {
    std::vector<Side> sides = context.input(0);
    if (op.family == Family::kConvolution || op.family == Family::kFloatConvolution) {
        const std::vector<Side> weights = context.input(1);
        Attributes a;
        int64_t size[2];
        context.integers("input_size", size, 2);
        context.integers("kernel_shape", a.kernel, 2);
        context.integers("strides", a.strides, 2);
        context.integers("dilations", a.dilations, 2);
        context.integers("pads", a.pads, 4);
        a.channels = 1;
        a.check();
        for (int i = 0; i < 2; ++i) sides[size_t(i + 1)] = {output_size(a, i, size[i]), ""};
        sides[3] = weights[3];
    }
    if (op.family == Family::kPooling) {
        int64_t size[2], kernel[2], zeros[2] = {0, 0};
        context.integers("input_size", size, 2);
        context.integers("kernel_shape", kernel, 2);
        if (op.zeros) context.integers("zeros", zeros, 2);
        if (!known(sides[3]) || kernel[0] < 1 || kernel[1] < 1 || zeros[0] < 0 || zeros[1] < 0) return;
        for (size_t i = 0; i < 2; ++i) sides[i + 1] = {size[i] / kernel[i], ""};
        if (__builtin_add_overflow(sides[3].size, zeros[0], &sides[3].size)) return;
        if (__builtin_add_overflow(sides[3].size, zeros[1], &sides[3].size)) return;
    }
    if (op.family == Family::kChain) {
        int64_t size[3];
        context.integers("output_size", size, 3);
        for (size_t i = 0; i < 3; ++i) {
            if (size[i] < 1) return;
            sides[i + 1] = {size[i], ""};
        }
    }
    for (size_t i = 0; i < op.outputs(); ++i) context.output(i, op.output_type(i), sides);
}

}  // namespace

void infer_shapes(const Operator& op, OrtShapeInferContext* context) noexcept {
    try {
        infer(op, Context{op.api, context});
    } catch (const Refused& refused) {
        ort::ReleaseStatus(op.api, refused.status);
    } catch (...) {
        // The shape stays unknown.
    }
}

}  // namespace bnn
