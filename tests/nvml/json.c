#include "json.h"

#include <stdlib.h>
#include <string.h>

static void skip(const char **at) {
    while (**at == ' ' || **at == '\t' || **at == '\n' || **at == '\r') (*at)++;
}

static char *copied(const char *start, size_t length) {
    char *text = malloc(length + 1);
    memcpy(text, start, length);
    text[length] = '\0';
    return text;
}

/* \uXXXX is a byte: a driver's text is bytes, and the insane one's are not UTF-8. */
static char *string(const char **at) {
    if (*(*at)++ != '"') return NULL;
    char *text = malloc(strlen(*at) + 1), *end = text;
    while (**at && **at != '"') {
        char c = *(*at)++;
        if (c == '\\') {
            c = *(*at)++;
            if (c == 'n') c = '\n';
            else if (c == 't') c = '\t';
            else if (c == 'u') {
                char digits[5] = {0};
                strncpy(digits, *at, 4);
                *at += strlen(digits);
                c = (char)strtol(digits, NULL, 16);
            } else if (!c) break;
        }
        *end++ = c;
    }
    *end = '\0';
    if (**at != '"') {
        free(text);
        return NULL;
    }
    (*at)++;
    return text;
}

static json *value(const char **at);

static bool members(const char **at, json *node, char close) {
    json **last = &node->first;
    (*at)++;
    skip(at);
    while (**at != close) {
        char *key = NULL;
        if (close == '}') {
            if (!(key = string(at))) return false;
            skip(at);
            if (*(*at)++ != ':') {
                free(key);
                return false;
            }
        }
        json *child = value(at);
        if (!child) {
            free(key);
            return false;
        }
        child->key = key;
        *last = child;
        last = &child->next;
        skip(at);
        if (**at == ',') {
            (*at)++;
            skip(at);
        } else if (**at != close) return false;
    }
    (*at)++;
    return true;
}

static json *value(const char **at) {
    json *node = calloc(1, sizeof *node);
    bool good = true;
    skip(at);
    if (**at == '{') {
        node->kind = JSON_OBJECT;
        good = members(at, node, '}');
    } else if (**at == '[') {
        node->kind = JSON_LIST;
        good = members(at, node, ']');
    } else if (**at == '"') {
        node->kind = JSON_STRING;
        good = (node->text = string(at)) != NULL;
    } else if (!strncmp(*at, "null", 4)) {
        *at += 4;
    } else if (!strncmp(*at, "true", 4) || !strncmp(*at, "false", 5)) {
        node->kind = JSON_BOOL;
        node->truth = **at == 't';
        *at += node->truth ? 4 : 5;
    } else {
        size_t length = strspn(*at, "+-0123456789.eE");
        node->kind = JSON_NUMBER;
        node->text = copied(*at, length);
        *at += length;
        good = length > 0;
    }
    if (good) return node;
    json_free(node);
    return NULL;
}

json *json_parse(const char *text) {
    const char *at = text;
    json *root = value(&at);
    if (!root) return NULL;
    skip(&at);
    if (!*at) return root;
    json_free(root);
    return NULL;
}

void json_free(json *node) {
    while (node) {
        json *next = node->next;
        json_free(node->first);
        free(node->text);
        free(node->key);
        free(node);
        node = next;
    }
}

const json *json_member(const json *object, const char *key) {
    if (!object || object->kind != JSON_OBJECT) return NULL;
    for (const json *each = object->first; each; each = each->next)
        if (!strcmp(each->key, key)) return each->kind == JSON_NULL ? NULL : each;
    return NULL;
}

const json *json_item(const json *list, size_t place) {
    const json *each = list && list->kind == JSON_LIST ? list->first : NULL;
    while (each && place--) each = each->next;
    return each && each->kind == JSON_NULL ? NULL : each;
}

size_t json_length(const json *list) {
    size_t length = 0;
    for (const json *each = list && list->kind == JSON_LIST ? list->first : NULL; each; each = each->next) length++;
    return length;
}

unsigned long long json_number(const json *node) {
    if (!node) return 0;
    if (node->kind == JSON_BOOL) return node->truth;
    if (node->kind != JSON_NUMBER) return 0;
    return *node->text == '-' ? (unsigned long long)strtoll(node->text, NULL, 10) : strtoull(node->text, NULL, 10);
}

const char *json_text(const json *node) { return node && node->kind == JSON_STRING ? node->text : NULL; }
