{{/*
The native sidecar, an item of `initContainers`: it starts before the model server, and restarts on
its own. Its start does not wait for the model server, which waits for it.
*/}}
{{- define "understudy-lib.sidecar" -}}
{{- $own := default .Values .Values.understudy -}}
{{- $tls := dig "listen" "tls" nil $own.config -}}
- name: understudy
  image: {{ include "understudy-lib.image" . }}
  imagePullPolicy: {{ $own.image.pullPolicy }}
  restartPolicy: Always
  command: [understudy, serve]
  args: [--config, /etc/understudy/understudy.yaml]
  env:
    {{- include "understudy-lib.env" . | nindent 4 }}
    {{- with $own.sidecar.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $own.sidecar.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: understudy-http, containerPort: {{ int $own.ports.traffic }}, protocol: TCP}
    - {name: understudy-ctl, containerPort: {{ int $own.ports.control }}, protocol: TCP}
  startupProbe:
    httpGet: {path: /healthz, port: {{ int $own.ports.control }}}
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: {{ int $own.sidecar.startSeconds }}
  readinessProbe:
    {{- if $own.sidecar.readyPath }}
    httpGet:
      path: {{ $own.sidecar.readyPath }}
      port: {{ int $own.ports.traffic }}
      {{- if $tls }}
      scheme: HTTPS
      {{- end }}
    {{- else }}
    tcpSocket: {port: {{ int $own.ports.traffic }}}
    {{- end }}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  {{- with $own.sidecar.livenessProbe }}
  livenessProbe:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  lifecycle:
    preStop:
      exec:
        # The sidecar is in front, so it has to stop first; Kubernetes would stop it last.
        command: [python, -c, "import os, signal, time; time.sleep({{ int $own.sidecar.drain.delaySeconds }}); os.kill(1, signal.SIGTERM)"]
  resources:
    {{- toYaml $own.sidecar.resources | nindent 4 }}
  securityContext:
    {{- /* Its own user, whatever the pod says. */}}
    {{- $user := pick $own.podSecurityContext "runAsNonRoot" "runAsUser" "runAsGroup" }}
    {{- toYaml (merge (dict) $own.containerSecurityContext $user) | nindent 4 }}
  volumeMounts:
    {{- include "understudy-lib.volumeMounts" . | nindent 4 }}
{{- end }}

{{- define "understudy-lib.env" -}}
- name: UNDERSTUDY_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "understudy-lib.secretName" . }}
      key: {{ (default .Values .Values.understudy).token.key }}
- {name: UNDERSTUDY_LOG_LEVEL, value: {{ (default .Values .Values.understudy).sidecar.logLevel }}}
- {name: UNDERSTUDY_LOG_FORMAT, value: json}
{{ include "understudy-lib.plainEnv" . }}
{{- end }}

{{/* What any of our programs needs where only /tmp can be written. */}}
{{- define "understudy-lib.plainEnv" -}}
- {name: HOME, value: /tmp}
- {name: PYTHONDONTWRITEBYTECODE, value: "1"}
- {name: OPENBLAS_NUM_THREADS, value: "1"}
{{- end }}

{{- define "understudy-lib.volumeMounts" -}}
- {name: understudy-config, mountPath: /etc/understudy, readOnly: true}
- {name: understudy-state, mountPath: /var/lib/understudy}
- {name: understudy-tmp, mountPath: /tmp}
{{- with (default .Values .Values.understudy).sidecar.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Items of `volumes`. */}}
{{- define "understudy-lib.volumes" -}}
{{- $own := default .Values .Values.understudy -}}
- name: understudy-config
  configMap: {name: {{ include "understudy-lib.fullname" . }}}
- name: understudy-state
  emptyDir: {sizeLimit: {{ $own.sidecar.state.sizeLimit }}}
- name: understudy-tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with $own.sidecar.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* `lifecycle` of the model server: it goes on until the sidecar has no requests any more. */}}
{{- define "understudy-lib.modelLifecycle" -}}
{{- $drain := (default .Values .Values.understudy).sidecar.drain -}}
{{- $seconds := add $drain.delaySeconds $drain.seconds -}}
{{- include "understudy-lib.wait" (dict "root" . "seconds" $seconds) }}
{{- end }}

{{/* `lifecycle` that waits before SIGTERM: (dict "root" $ "seconds" 5). */}}
{{- define "understudy-lib.wait" -}}
preStop:
  {{- if semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version }}
  sleep: {seconds: {{ .seconds }}}
  {{- else }}
  exec: {command: [sleep, {{ .seconds | quote }}]}
  {{- end }}
{{- end }}

{{/* Of the pod: the steps of `sidecar.drain`, and what the sidecar takes to hand over its records. */}}
{{- define "understudy-lib.terminationGracePeriodSeconds" -}}
{{- $drain := (default .Values .Values.understudy).sidecar.drain -}}
{{- add $drain.delaySeconds $drain.seconds $drain.modelSeconds 20 -}}
{{- end }}

{{/* What a pod of the restricted Pod Security Standard says of itself. */}}
{{- define "understudy-lib.podSettings" -}}
{{- $own := default .Values .Values.understudy -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml $own.podSecurityContext | nindent 2 }}
{{- with $own.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
