{{- define "iei.name" -}}
{{- if contains "iei" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-iei" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "iei.selector" -}}
app.kubernetes.io/name: iei
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "iei.labels" -}}
{{ include "iei.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* The secret with the API keys; empty where there are none. */ -}}
{{- define "iei.keys" -}}
{{- if .Values.apiKeys.lines }}{{ include "iei.name" . }}-keys{{ else }}{{ .Values.apiKeys.secret }}{{ end }}
{{- end }}

{{- /* The claim of the cache; empty where it is lost with the pod. */ -}}
{{- define "iei.claim" -}}
{{- if .Values.cache.persistent }}{{ .Values.cache.claim | default (printf "%s-cache" (include "iei.name" .)) }}{{ end }}
{{- end }}

{{- /* Whether there may be several pods. */ -}}
{{- define "iei.several" -}}
{{- if or .Values.autoscaling.by (gt (int .Values.replicas) 1) }}yes{{ end }}
{{- end }}

{{- /* Prometheus' labels of the pods of this release. */ -}}
{{- define "iei.series" -}}
namespace="{{ .Release.Namespace }}",service="{{ include "iei.name" . }}-metrics"
{{- end }}
